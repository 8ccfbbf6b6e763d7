"use strict";
/* The members of a group side by side: which one is shown, how the others fared, and ways to them. */
{
  const { h, format, route, text } = view;

  /** A strip of links. `[` and `]` go to the neighbours. */
  view.siblings = (run, episode, signal) => {
    const to = (member) => route(["r", run, "e", episode.group, member]);
    const members = episode.siblings;
    const at = members.findIndex(({ member }) => member === episode.member);
    const links = members.map((one) => h("a", {
      href: to(one.member), class: `sibling ${one.outcome}`, ...(one.member === episode.member ? { "aria-current": "true" } : {}),
      title: `member ${one.member}: ${format.words(one.failure_owner ?? one.stop_reason)}, ${one.turns} turns`,
    }, h("span", { class: "dim" }, one.member), " ", one.failure_owner ? h("span", {}, "✕ ", text.inline(one.failure_owner)) : format.number(one.reward)));
    const go = (by) => () => {
      const next = members[(at + by + members.length) % members.length];
      if (next) location.hash = to(next.member);
    };
    view.keys.bind({
      "[": ["previous sibling", go(-1)], "]": ["next sibling", go(1)],
      ArrowLeft: ["previous sibling", go(-1)], ArrowRight: ["next sibling", go(1)],
    }, signal);
    return h("nav", { class: "siblings", "aria-label": "Siblings: episodes of the same group" }, links);
  };
}
