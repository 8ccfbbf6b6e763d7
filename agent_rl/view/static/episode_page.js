"use strict";
/* One episode: what was asked, what was done, what it cost, and its tokens. */
{
  const { h, format, route, text } = view;

  function timings(episode) {
    const generation = episode.turns.reduce((sum, turn) => sum + turn.generation_s, 0);
    const step = episode.turns.reduce((sum, turn) => sum + turn.step_s, 0);
    const waiting = Math.max(0, episode.duration_s - episode.setup_s - generation - step);
    const parts = [["generation", generation], ["tools", step], ["setup", episode.setup_s], ["waiting", waiting]];
    const total = parts.reduce((sum, [, value]) => sum + value, 0) || 1;
    return h("div", { class: "timings" },
      h("div", { class: "stacked", "aria-hidden": "true" }, parts.map(([name, value]) => h("span", { class: name, style: { width: `${(100 * value) / total}%` } }))),
      h("ul", { class: "legend" }, parts.map(([name, value]) => h("li", {}, h("span", { class: `key ${name}` }), `${name} ${format.seconds(value)}`))));
  }

  function failure(found, attempt) {
    if (!found) return null;
    return h("section", { class: attempt ? "card" : "card failure" }, h("h2", {}, attempt ? `Attempt ${attempt}: ` : null, h("span", { class: "badge failed" }, text.inline(found.owner)), " ", text.inline(format.words(found.kind)), h("span", { class: "dim" }, " in ", text.inline(found.stage || "the episode"))),
      text.block(found.message), attempt ? null : h("p", { class: "dim" }, found.retryable ? "May be tried again; excluded from training and scores." : "Not worth another attempt; excluded from training and scores."),
      found.traceback ? h("details", {}, h("summary", {}, "Traceback"), text.block(found.traceback, "code")) : null);
  }

  function table(title, entries, open = true) {
    if (!entries.length) return null;
    return h("details", { class: "card", open }, h("summary", {}, title), h("dl", { class: "pairs" }, entries.map(([name, value]) => h("div", {}, h("dt", {}, text.inline(name)), h("dd", {}, value)))));
  }

  function rewards(episode, show) {
    const some = episode.turns.filter((turn) => turn.reward);
    if (!some.length || episode.turns.length < 2) return null;
    const most = Math.max(...some.map((turn) => Math.abs(turn.reward) || 0)) || 1;
    return h("section", { class: "card" }, h("h2", {}, "Reward by turn"), h("div", { class: "per-turn" }, episode.turns.slice(0, 200).map((turn) => h("button", {
      type: "button", class: turn.reward < 0 ? "failed" : "success", title: `turn ${turn.index + 1}: ${format.number(turn.reward)}`, "aria-label": `Turn ${turn.index + 1}, reward ${format.number(turn.reward)}`,
      onclick: () => show(turn.index) }, h("span", { style: { height: `${Math.max(turn.reward ? 8 : 2, (100 * Math.abs(turn.reward || 0)) / most)}%` } })))));
  }

  function others(run, episode) {
    const to = (other) => route(["r", run, "e", episode.group, episode.member, "vs", other.run, other.group, other.member]);
    const list = h("div", {});
    const section = h("details", { class: "card", ontoggle: async () => {
      if (list.childElementCount) return;
      const { episodes } = await view.source.partners(episode.task.id);
      const found = episodes.filter((one) => !(one.run === run && one.group === episode.group && one.member === episode.member));
      list.append(h("ul", { class: "plain" }, found.map((one) => h("li", {}, h("a", { class: "row", href: to(one) },
        text.inline(`${one.run === run ? "" : `${one.run} `}${one.group}.${one.member}`), h("span", { class: "grow" }), h("span", { class: one.outcome }, one.failure_owner ? text.inline(one.failure_owner) : format.number(one.reward)))))),
        found.length ? "" : h("p", { class: "dim" }, "No other episode of this task in the runs that are open."));
    } }, h("summary", {}, "Side by side with …"), list);
    return section;
  }

  function head(run, episode, signal) {
    const { task } = episode;
    return h("section", { class: "card head" },
      h("div", { class: "row" }, h("h1", {}, text.inline(task.id, 120)), h("span", { class: `big ${episode.outcome}` }, format.number(episode.reward)),
        h("span", { class: episode.failure ? "badge failed" : "badge" }, text.inline(format.words(episode.stop_reason))), (task.tags ?? []).map((tag) => h("span", { class: "badge" }, text.inline(tag)))),
      h("p", { class: "dim" }, [`group ${episode.group}, member ${episode.member}`, `${format.number(episode.turns.length)} turns`, `${format.number(episode.sampled_tokens)} of ${format.number(episode.tokens)} tokens sampled`,
        episode.step === null ? "not trained on" : `trained on in step ${episode.step}`, episode.attempts > 1 ? `${episode.attempts} attempts` : null, format.moment(episode.began_at)].filter(Boolean).join(" · ")),
      timings(episode), view.siblings(run, episode, signal));
  }

  view.episodePage = async (page, [run, , group, member], query, signal) => {
    const episode = await view.source.episode(run, group, member);
    const here = ["r", run, "e", group, member];
    const change = (changes, render = false) => {
      const next = route(here, { ...query, ...changes });
      if (render) location.hash = next; else { Object.assign(query, changes); history.replaceState(null, "", next); }
    };
    const tokens = query.tab === "tokens";
    const tab = (name, label) => h("a", { href: route(here, { ...query, tab: name, turn: "" }), class: "tab", ...((query.tab ?? "") === name ? { "aria-current": "page" } : {}) }, label);
    const overlay = tokens ? view.tokens(await view.source.tokens(run, group, member), query, change) : null;
    const content = overlay ? overlay.element
      : view.conversation(episode, (turn) => h("a", { href: route(here, { tab: "tokens", segment: turn.segment || "", turn: turn.index }), class: "dim" }, "tokens"));
    let turn = tokens ? -1 : Number(query.turn ?? -1);
    const show = (index) => {
      if (tokens) return void (location.hash = route(here, { turn: index }));
      turn = Math.max(0, Math.min(episode.turns.length - 1, index));
      content.show(turn);
      change({ turn });
    };
    page.append(head(run, episode, signal), h("div", { class: "columns" },
      h("div", {}, h("div", { class: "tabs" }, tab("", "Conversation"), tab("tokens", "Tokens")), content),
      h("div", { class: "stack" }, overlay?.card, failure(episode.failure), (episode.earlier_failures ?? []).map((found, index) => failure(found, index + 1)), rewards(episode, show), others(run, episode),
        table("Metrics", Object.entries(episode.metrics).map(([name, value]) => [name, format.number(value)])),
        table("Task data (the model never sees it)", Object.entries(episode.task.data ?? {}).map(([name, value]) => [name, text.block(format.value(value))]), false))));
    if (!tokens && turn >= 0) requestAnimationFrame(() => content.show(turn));
    view.keys.bind({
      j: ["next turn", () => show(turn + 1)], k: ["previous turn", () => show(turn - 1)],
      c: ["conversation", () => { location.hash = route(here, {}); }], o: ["token overlay", () => { location.hash = route(here, { tab: "tokens" }); }],
    }, signal);
  };
}
