"use strict";
/* Messages as a conversation: what the model wrote, the tools it called and what came back, reward by reward. */
{
  const { h, format, text } = view;
  const BATCH = 60;  // turns that are drawn at once: an episode may have thousands

  function reasoning(content) {
    if (!content) return null;
    return h("details", { class: "reasoning" }, h("summary", {}, "Reasoning ", h("span", { class: "dim" }, format.bytes(content.length))), text.block(content));
  }

  function argument(name, value) {
    const long = typeof value === "string" && (value.includes("\n") || value.length > 60);
    const shown = typeof value === "string" ? text.block(value, "value") : text.block(JSON.stringify(value, null, long ? 0 : 2), "value code");
    return h("div", { class: "argument" }, h("dt", {}, text.inline(name)), h("dd", {}, shown));
  }

  function call(found, result) {
    const entries = Object.entries(found.arguments ?? {});
    const error = result?.error ?? found.error;
    return h("div", { class: `call ${error ? "bad" : ""}` },
      h("div", { class: "row" }, h("span", { class: "glyph", "aria-hidden": "true" }, "▸"), h("strong", { class: "code" }, found.name ? text.inline(found.name) : "(no tool)"),
        error ? h("span", { class: "badge failed" }, text.inline(error, 120)) : null, h("span", { class: "grow" }),
        result ? h("span", { class: "dim", title: "time in the tool" }, format.seconds(result.duration_s)) : null),
      entries.length ? h("dl", { class: "arguments" }, entries.map(([name, value]) => argument(name, value))) : null);
  }

  function message({ role, content, reasoning_content, tool_calls }) {
    return h("article", { class: `message ${role}` }, h("header", {}, h("span", { class: "role" }, role)),
      reasoning(reasoning_content), content ? text.block(content) : null, (tool_calls ?? []).map((found) => call(found, null)));
  }

  function observation(found, results) {
    const result = results.find(({ call: { id } }) => id === found.tool_call_id);
    const name = result ? [text.inline(result.call.name), " "] : null;
    const shown = found.content ? text.block(found.content) : h("p", { class: "dim" }, "(empty)");
    return h("article", { class: `message ${found.role} ${result?.error ? "bad" : ""}` },
      h("header", {}, h("span", { class: "role" }, found.role), name, result?.error ? h("span", { class: "badge failed" }, text.inline(result.error, 120)) : null), shown);
  }

  function reward(turn) {
    const terms = Object.entries(turn.reward_terms ?? {});
    const sign = typeof turn.reward === "number" && turn.reward > 0 ? "success" : turn.reward < 0 ? "failed" : "dim";
    return h("span", { class: `reward ${sign}`, title: "reward of this turn" }, typeof turn.reward === "number" && turn.reward > 0 ? "+" : "", format.number(turn.reward),
      terms.length ? h("span", { class: "dim" }, " = ", terms.map(([name, value], i) => [i ? ", " : "", text.inline(name), ` ${format.number(value)}`])) : null);
  }

  function facts(turn) {
    const tokens = turn.end - turn.start;
    return h("span", { class: "dim" }, [`${format.number(tokens)} tokens`, `generated in ${format.seconds(turn.generation_s)}`, turn.internal ? null : `step ${format.seconds(turn.step_s)}`,
      turn.finish_reason === "stop" ? null : `ended by ${turn.finish_reason}`].filter(Boolean).join(" · "));
  }

  /** One turn. `tools` is what belongs beside its number, such as a link to its tokens. */
  function turn(found, tools = null) {
    const results = found.tool_results ?? [];
    const { content, reasoning_content, tool_calls } = found.action;
    const byId = (id, i) => results.find(({ call: { id: other } }) => other === id) ?? results[i];
    return h("section", { class: "turn", id: `turn-${found.index}`, "data-turn": found.index, tabindex: -1, "aria-label": `Turn ${found.index + 1}` },
      h("header", { class: "row" }, h("strong", {}, `Turn ${found.index + 1}`), found.tag ? h("span", { class: "badge" }, text.inline(found.tag)) : null,
        found.internal ? h("span", { class: "badge" }, "internal") : null, reward(found), facts(found), h("span", { class: "grow" }), tools),
      h("article", { class: "message assistant" }, reasoning(reasoning_content),
        content ? text.block(content) : null, (tool_calls ?? []).map((one, i) => call(one, byId(one.id, i))),
        content || tool_calls?.length || reasoning_content ? null : h("p", { class: "dim" }, "(nothing)")),
      found.observations.map((one) => observation(one, results)));
  }

  /**
   * The prompt and all turns; turns beyond the first come when the reader gets near them. `element.show(index)` draws
   * as far as that turn, brings it into view and focuses it.
   */
  function conversation(episode, tools) {
    const rest = episode.turns.slice();
    const list = h("div", { class: "turns" });
    const sentinel = h("button", { type: "button", class: "more" });
    const draw = (count) => {
      list.append(...rest.splice(0, count).map((found) => turn(found, tools(found))));
      sentinel.textContent = `${format.number(rest.length)} more turns`;
      sentinel.hidden = !rest.length;
    };
    sentinel.addEventListener("click", () => draw(BATCH));
    new IntersectionObserver((entries) => { if (entries.some(({ isIntersecting }) => isIntersecting) && rest.length) draw(BATCH); }, { rootMargin: "800px" }).observe(sentinel);
    draw(BATCH);
    const element = h("div", { class: "conversation" }, episode.prompt.map(message), list, sentinel);
    element.show = (index) => {
      while (rest.length && rest[0].index <= index) draw(BATCH);
      const found = list.querySelector(`[data-turn="${Number(index)}"]`);
      found?.scrollIntoView({ block: "start" });
      found?.focus({ preventScroll: true });
      return Boolean(found);
    };
    return element;
  }

  view.conversation = conversation;
  view.turn = turn;
  view.message = message;
}
