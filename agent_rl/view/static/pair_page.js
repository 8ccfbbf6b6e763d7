"use strict";
/* Two episodes side by side, turn by turn; the first turn in which they did something else is marked. */
{
  const { h, format, route, text } = view;

  /** What an action did, without the names that differ from call to call. */
  function deed({ action }) {
    return JSON.stringify([action.content, action.tool_calls.map(({ name, arguments: given }) => [name, given])]);
  }

  function firstDifference(a, b) {
    const turns = Math.max(a.turns.length, b.turns.length);
    for (let i = 0; i < turns; i++) if (!a.turns[i] || !b.turns[i] || deed(a.turns[i]) !== deed(b.turns[i])) return i;
    return null;
  }

  function title(run, episode) {
    return h("section", { class: "card head" },
      h("div", { class: "row" }, h("a", { href: route(["r", run, "e", episode.group, episode.member]) }, text.inline(`${run} ${episode.group}.${episode.member}`)),
        h("span", { class: `big ${episode.outcome}` }, format.number(episode.reward)), h("span", { class: "badge" }, text.inline(format.words(episode.stop_reason)))),
      h("p", { class: "dim" }, text.inline(episode.task.id, 120), ` · ${episode.turns.length} turns · ${format.seconds(episode.duration_s)} · ${format.number(episode.sampled_tokens)} tokens`));
  }

  view.pairPage = async (page, [run, , group, member, , otherRun, otherGroup, otherMember], query, signal) => {
    const [a, b] = await Promise.all([view.source.episode(run, group, member), view.source.episode(otherRun, otherGroup, otherMember)]);
    const different = firstDifference(a, b);
    const rows = h("div", { class: "pair" }, title(run, a), title(otherRun, b));
    const turns = Math.max(a.turns.length, b.turns.length);
    let drawn = 0;
    const more = h("button", { type: "button", class: "more", onclick: () => draw(50) });
    function draw(count) {
      for (const end = Math.min(turns, drawn + count); drawn < end; drawn++) {
        if (drawn === different) rows.append(h("div", { class: "difference", id: "difference", tabindex: -1 }, `First difference: turn ${drawn + 1}`));
        for (const { turns: played } of [a, b]) rows.append(played[drawn] ? view.turn(played[drawn]) : h("p", { class: "empty" }, "already over"));
      }
      more.textContent = `${turns - drawn} more turns`;
      more.hidden = drawn >= turns;
    }
    draw(Math.max(50, (different ?? 0) + 1));
    const jump = () => { const mark = document.getElementById("difference"); mark?.scrollIntoView({ block: "center" }); mark?.focus({ preventScroll: true }); };
    const swap = route(["r", otherRun, "e", otherGroup, otherMember, "vs", run, group, member]);
    page.append(h("div", { class: "bar" }, h("h1", {}, "Side by side"), h("span", { class: "dim" }, different === null ? "the same from beginning to end" : different === 0 ? "different from the first turn on" : `the same until turn ${different + 1}`), h("span", { class: "grow" }),
      different === null ? null : h("button", { type: "button", onclick: jump }, "First difference (d)"), h("a", { class: "button", href: swap }, "Swap")), rows, more);
    view.keys.bind({ d: ["first difference", jump], s: ["swap sides", () => { location.hash = swap; }] }, signal);
  };
}
