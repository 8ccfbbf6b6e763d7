"use strict";
/* The table of episodes: filtered and sorted where the data is, one page of rows at a time. */
{
  const { h, format, route, text } = view;
  const LIMIT = 100;

  const COLUMNS = [
    { name: "group", title: "episode", show: (row) => `${row.group}.${row.member}` },
    { name: "task", title: "task", show: (row) => text.inline(row.task, 80), text: true },
    { name: "reward", title: "reward", show: (row) => h("span", { class: row.outcome }, format.number(row.reward)), number: true },
    { name: "stop_reason", title: "end", show: (row) => outcome(row) },
    { name: "turns", title: "turns", show: (row) => format.number(row.turns), number: true },
    { name: "sampled_tokens", title: "sampled", show: (row) => format.number(row.sampled_tokens), number: true, wide: true },
    { name: "tokens", title: "tokens", show: (row) => format.number(row.tokens), number: true, wide: true },
    { name: "tool_calls", title: "calls", show: (row) => format.number(row.tool_calls), number: true, wide: true },
    { name: "tool_errors", title: "errors", show: (row) => format.number(row.tool_errors), number: true, wide: true },
    { name: "duration_s", title: "time", show: (row) => format.seconds(row.duration_s), number: true, wide: true },
    { name: "step", title: "step", show: (row) => format.number(row.step), number: true, wide: true },
  ];

  const known = new Map();  // the choices of runs, which hardly change

  function choicesOf(run) {
    if (!known.has(run)) known.set(run, view.source.choices(run).catch((error) => { known.delete(run); throw error; }));
    return known.get(run);
  }

  function outcome(row) {
    if (row.failure_owner === null) return text.inline(format.words(row.stop_reason));
    return h("span", { class: "badge failed" }, text.inline(`${row.failure_owner}: ${format.words(row.failure_kind)}`, 60));
  }

  function heading(column, sort, onsort) {
    const now = sort.replace(/^-/, "") === column.name ? (sort.startsWith("-") ? "descending" : "ascending") : null;
    const arrow = { descending: " ↓", ascending: " ↑" }[now] ?? "";
    const first = column.number ? "-" : "";
    const next = now === null ? `${first}${column.name}` : now === "ascending" ? `-${column.name}` : column.name;
    return h("th", { scope: "col", class: `${column.number ? "number" : ""} ${column.wide ? "wide" : ""}`, "aria-sort": now ?? "none" },
      h("button", { type: "button", class: "sort", onclick: () => onsort(next) }, column.title, arrow));
  }

  function line(run, row) {
    const cells = COLUMNS.map((column) => h("td", { class: `${column.number ? "number" : ""} ${column.wide ? "wide" : ""} ${column.text ? "words" : ""}` },
      column.name === "group" ? h("a", { href: route(["r", run, "e", row.group, row.member]) }, column.show(row)) : column.show(row)));
    return h("tr", { onclick: (event) => { if (!event.target.closest("a") && !getSelection().toString()) event.currentTarget.querySelector("a").click(); } }, cells);
  }

  function pager(offset, total, go) {
    const button = (label, to, off) => h("button", { type: "button", disabled: off, onclick: () => go(to) }, label);
    const last = Math.max(0, Math.floor((total - 1) / LIMIT) * LIMIT);
    return h("div", { class: "bar pager" },
      button("⇤ first", 0, offset === 0), button("← previous", Math.max(0, offset - LIMIT), offset === 0),
      h("span", { class: "dim" }, total ? `${format.number(offset + 1)} – ${format.number(Math.min(total, offset + LIMIT))} of ${format.number(total)}` : "nothing"),
      button("next →", offset + LIMIT, offset + LIMIT >= total), button("last ⇥", last, offset >= last));
  }

  view.episodesPage = async (page, [run], query, signal) => {
    const { sort = "group", offset = "0", ...filters } = query;
    const change = (changes) => { location.hash = route(["r", run, "episodes"], { ...query, offset: "", ...changes }); };
    const [found, choices] = await Promise.all([view.source.episodes(run, { ...filters, sort, offset, limit: LIMIT }), choicesOf(run)]);
    const clear = Object.fromEntries(view.filterNames.map((name) => [name, ""]));
    const form = view.filters(filters, choices, (asked) => change({ ...clear, ...asked }));
    const bars = view.histogram(found.histogram, "reward", (bin) => change({ reward_min: round(bin.low, Math.floor), reward_max: round(bin.high, Math.ceil) }));
    const rows = found.rows.map((row) => line(run, row));
    const go = (to) => change({ offset: to || "" });
    page.append(h("h1", { class: "unseen" }, "Episodes"), form,
      h("div", { class: "bar summary" }, h("strong", { id: "total" }, `${format.number(found.total)} episodes`),
        found.total < found.all ? h("span", { class: "dim" }, `of ${format.number(found.all)}`) : null, h("span", { class: "grow" }), bars),
      rows.length
        ? h("div", { class: "scroll" }, h("table", { class: "episodes" }, h("thead", {}, h("tr", {}, COLUMNS.map((column) => heading(column, sort, (next) => change({ sort: next }))))), h("tbody", { "data-walk": true }, rows)))
        : h("p", { class: "empty" }, "No episode is like that."),
      pager(Number(offset), found.total, go));
    view.say(`${found.total} episodes`);
    view.keys.bind({
      n: ["next page", () => { if (Number(offset) + LIMIT < found.total) go(Number(offset) + LIMIT); }],
      p: ["previous page", () => { if (Number(offset)) go(Math.max(0, Number(offset) - LIMIT)); }],
    }, signal);
  };

  /** The edge of a bin with few digits, outwards, so that what the bin counted stays inside. */
  function round(value, direction) {
    return String(direction(Number((value * 1e6).toPrecision(12))) / 1e6);
  }
}
