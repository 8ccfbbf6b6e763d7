"use strict";
/* All runs: what they are, how far they got, which to compare. */
{
  const { h, format, route, text } = view;

  function status(state) {
    return h("span", { class: `badge ${state}` }, state);
  }

  function progress({ step, steps }) {
    if (!steps) return format.number(step);
    return h("span", { class: "progress" }, `${format.number(step)} / ${format.number(steps)}`,
      h("progress", { max: steps, value: step, "aria-label": "training steps" }));
  }

  function card(run, chosen, onchoose) {
    const facts = [
      [run.environments > 1 ? `${run.environment} and ${run.environments - 1} more` : run.environment, "environment"],
      [progress(run), run.kind === "eval" ? "tasks" : "steps"],
      [format.number(run.episodes), "episodes"],
      [format.number(run.reward), "mean reward"],
      [format.ago(run.changed_at), "changed"],
    ];
    return h("li", { class: "card run" },
      h("input", { type: "checkbox", "aria-label": `Compare ${run.id}`, ...(chosen ? { checked: true } : {}), onchange: onchoose }),
      h("a", { href: route(["r", run.id]), class: "row" },
        h("strong", {}, text.inline(run.id)), status(run.status), h("span", { class: "badge" }, run.kind),
        run.reason ? h("span", { class: "dim" }, text.inline(run.reason, 200)) : null),
      h("dl", { class: "facts" }, facts.map(([value, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, typeof value === "string" ? text.inline(value) : value)))));
  }

  view.runsPage = async (page) => {
    const { runs, where } = await view.source.runs();
    const chosen = new Set();
    const compare = h("a", { class: "button", href: "#/", hidden: true }, "Compare");
    const search = h("input", { type: "search", placeholder: "Find a run  ( / )", "aria-label": "Find a run", "data-search": true, oninput: draw });
    const list = h("ul", { class: "cards", "data-walk": true });

    function choose(id, event) {
      if (event.target.checked) chosen.add(id); else chosen.delete(id);
      const [first, ...others] = chosen;
      compare.hidden = !others.length;
      if (first) compare.setAttribute("href", route(["r", first], { with: others.join(",") }));
      compare.textContent = `Compare ${chosen.size} runs`;
    }

    function draw() {
      const wanted = runs.filter(({ id, environment }) => `${id} ${environment}`.toLowerCase().includes(search.value.toLowerCase()));
      list.replaceChildren(...wanted.map((run) => card(run, chosen.has(run.id), (event) => choose(run.id, event))));
      if (!wanted.length) list.append(h("li", { class: "empty" }, runs.length ? "No run is called that." : "No runs yet. agent-rl train quickstart makes one."));
    }

    draw();
    page.append(h("div", { class: "bar" }, h("h1", {}, "Runs"), h("span", { class: "dim" }, text.inline(where)), h("span", { class: "grow" }), compare, search), list);
  };

  view.statusBadge = status;
}
