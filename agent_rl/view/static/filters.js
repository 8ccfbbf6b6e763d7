"use strict";
/* The filters of the table of episodes: a form that lives in the address. */
{
  const { h, format } = view;
  const RANGES = { reward: "reward", turns: "turns", tokens: "tokens", duration: "seconds", step: "step" };
  const CHOICES = { outcome: "outcome", stop: "stopped by", owner: "failure of", kind: "failure kind", tag: "tag", environment: "environment" };
  const NAMES = ["task", ...Object.keys(CHOICES), ...Object.keys(RANGES).flatMap((name) => [`${name}_min`, `${name}_max`])];

  function range(name, label, query) {
    const field = (end, what) => h("input", { type: "number", step: "any", name: `${name}_${end}`, value: query[`${name}_${end}`] ?? "", placeholder: what, "aria-label": `${label}, ${end === "min" ? "at least" : "at most"}` });
    return h("fieldset", { class: "range" }, h("legend", {}, label), field("min", "≥"), field("max", "≤"));
  }

  function choice(name, label, options, query) {
    const entries = [["", "any"], ...options.map((option) => [option, format.words(option)])];
    return h("label", { class: "field" }, h("span", {}, label), h("select", { name },
      entries.map(([value, shown]) => h("option", { value, selected: (query[name] ?? "") === value }, view.text.plain(shown)))));
  }

  /** `onchange(query)` is called with the filters that are set, soon after the last change. */
  view.filters = (query, choices, onchange) => {
    let timer;
    const read = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
    const later = (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => onchange(read()), event.type === "input" && event.target.matches("[type=search], [type=number]") ? 250 : 0);
    };
    const search = h("input", { type: "search", name: "task", value: query.task ?? "", placeholder: "Task id or text  ( / )", "aria-label": "Task id or text", "data-search": true });
    const some = Object.entries(CHOICES).filter(([name]) => (choices[name] ?? []).length > (name === "outcome" ? 0 : 1) || query[name]);
    const used = NAMES.filter((name) => name !== "task" && query[name]).length;
    const form = h("form", { class: "filters", role: "search", oninput: later, onsubmit: (event) => { event.preventDefault(); onchange(read()); } },
      h("div", { class: "bar" }, search, h("button", { type: "button", onclick: () => onchange({}), hidden: !used && !query.task }, "Clear")),
      h("details", { open: used > 0 || matchMedia("(min-width: 60rem)").matches }, h("summary", {}, "Filters", used ? h("span", { class: "badge" }, used) : null),
        h("div", { class: "fields" }, some.map(([name, label]) => choice(name, label, choices[name] ?? [query[name]], query)),
          Object.entries(RANGES).map(([name, label]) => range(name, label, query)))));
    return form;
  };
  view.filterNames = NAMES;
}
