"use strict";
/* The curves of a run, or of several over each other: what matters most first, then grouped by prefix. */
{
  const { h, chart, text } = view;
  // Which metrics a reader looks at first, each by the first name that the run has.
  const FIRST = [
    ["rollout/reward"], ["rollout/success"], ["rollout/sampled_tokens"], ["rollout/turns"], ["rollout/staleness_mean"],
    ["learner/entropy"], ["learner/approx_kl"], ["learner/mismatch_k3", "learner/mismatch_abs"], ["learner/grad_norm"],
    ["time/sampled_tokens_per_s"], ["rollout/tool_errors"], ["rollout/episodes_failed"],
  ];

  function grouped(names) {
    const groups = new Map([["first", FIRST.map((choices) => choices.find((name) => names.includes(name))).filter(Boolean)]]);
    for (const name of names) {
      const prefix = name.includes("/") ? name.slice(0, name.indexOf("/")) : "other";
      groups.set(prefix, [...(groups.get(prefix) ?? []), name]);
    }
    return groups;
  }

  /** `runs`: [{ id, steps, series }]. Returns the element, and `update(runs)`. */
  view.curves = (runs) => {
    let shown = runs, weight = 0.6;
    const body = h("div", {});
    const search = h("input", { type: "search", placeholder: "Find a metric  ( / )", "aria-label": "Find a metric", "data-search": true, oninput: draw });
    const slider = h("input", { type: "range", min: 0, max: 0.95, step: 0.05, value: weight, "aria-label": "Smoothing",
      oninput: () => { weight = Number(slider.value); draw(); } });
    const open = new Set(["first"]);

    function one(name) {
      const lines = shown.filter(({ series }) => series[name]).map(({ id, steps, series }) => ({ name: id, steps, values: series[name] }));
      return chart(name, lines, weight);
    }

    function draw() {
      const names = [...new Set(shown.flatMap(({ series }) => Object.keys(series)))].sort();
      if (!names.length) return body.replaceChildren(h("p", { class: "empty" }, "No metrics yet: a line comes with every training step."));
      const needle = search.value.trim().toLowerCase();
      if (needle) {
        const found = names.filter((name) => name.toLowerCase().includes(needle));
        return body.replaceChildren(found.length ? h("div", { class: "charts" }, found.map(one)) : h("p", { class: "empty" }, "No metric is called that."));
      }
      const sections = [...grouped(names)].filter(([, members]) => members.length).map(([prefix, members]) => {
        const grid = h("div", { class: "charts" });
        const fill = () => { if (!grid.childElementCount) grid.append(...members.map(one)); };
        if (open.has(prefix)) fill();
        return h("details", { open: open.has(prefix), class: "metrics", ontoggle: (event) => {
          if (event.target.open) { open.add(prefix); fill(); } else open.delete(prefix);
        } }, h("summary", {}, prefix === "first" ? "At a glance" : text.inline(prefix), h("span", { class: "dim" }, ` ${members.length}`)), grid);
      });
      body.replaceChildren(...sections);
    }

    draw();
    const legend = runs.length > 1 ? h("ul", { class: "legend" }, runs.map(({ id }, i) => h("li", {}, h("span", { class: `key c${i % 6}` }), text.inline(id)))) : null;
    const element = h("section", { "aria-label": "Curves" },
      h("div", { class: "bar" }, h("h2", {}, "Curves"), legend, h("span", { class: "grow" }), h("label", { class: "inline" }, "smooth ", slider), search), body);
    return { element, update: (newer) => { shown = newer; draw(); } };
  };
}
