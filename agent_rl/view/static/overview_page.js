"use strict";
/* One run, or several over each other: status, curves, evaluations, failures, checkpoints, config. */
{
  const { h, format, route, text } = view;
  const EVERY_MS = 3000;

  function estimate(found) {
    if (!found) return format.NONE;
    return [format.percent(found.value), h("span", { class: "dim" }, ` ${(100 * found.low).toFixed(1)} – ${(100 * found.high).toFixed(1)}`)];
  }

  function interval(found) {
    if (!found) return h("td", {});
    const place = (value) => `${100 * Math.max(0, Math.min(1, value))}%`;
    return h("td", { "aria-hidden": "true" }, h("div", { class: "whisker" },
      h("span", { style: { left: place(found.low), width: `calc(${place(found.high)} - ${place(found.low)})` } }), h("i", { style: { left: place(found.value) } })));
  }

  function section(title, count, ...content) {
    return h("section", { class: "card" }, h("h2", {}, title, count === null ? null : h("span", { class: "dim" }, ` ${format.number(count)}`)), content);
  }

  function evaluations(all) {
    const rows = all.flatMap(({ run, entries }) => entries.map((entry) => h("tr", {},
      h("th", { scope: "row" }, text.inline(all.length > 1 ? `${run}: ${entry.name}` : entry.name), entry.step === null ? null : h("span", { class: "dim" }, ` @${entry.step}`)),
      h("td", { class: "number" }, estimate(entry.success)), interval(entry.success),
      h("td", { class: "number wide" }, format.number(entry.reward?.value)), h("td", { class: "number wide" }, format.number(entry.episodes)))));
    if (!rows.length) return null;
    return section("Evaluations", null, h("div", { class: "scroll" }, h("table", { class: "compact evaluations" },
      h("thead", {}, h("tr", {}, ["", "success, 95%", "0 to 1"].map((name) => h("th", { scope: "col" }, name)), ["reward", "episodes"].map((name) => h("th", { scope: "col", class: "wide number" }, name)))),
      h("tbody", {}, rows))));
  }

  function failures(run, found, episodes) {
    const total = found.reduce((sum, { count }) => sum + count, 0);
    const rows = found.map(({ owner, kind, count }) => h("li", {}, h("a", { class: "row", href: route(["r", run, "episodes"], { owner, kind }) },
      h("span", { class: "badge failed" }, text.inline(owner)), text.inline(format.words(kind)), h("span", { class: "grow" }), format.number(count),
      h("span", { class: "dim" }, format.percent(count / episodes)))));
    return section("Failures by owner", total, rows.length ? h("ul", { class: "plain" }, rows) : h("p", { class: "dim" }, "None: every episode counts."));
  }

  function checkpoints(found) {
    const rows = found.map(({ step, weight_version, next_group, bytes }) => h("tr", {},
      h("th", { scope: "row" }, `step ${format.number(step)}`), h("td", { class: "number" }, `weights ${weight_version}`),
      h("td", { class: "number wide" }, `next group ${format.number(next_group)}`), h("td", { class: "number" }, format.bytes(bytes))));
    return section("Checkpoints", found.length, rows.length ? h("table", { class: "compact" }, h("tbody", {}, rows)) : h("p", { class: "dim" }, "None yet."));
  }

  /** What was set for this run. */
  function settings(run) {
    const card = section("Settings that differ", null, h("p", { class: "dim" }, "…"));
    view.source.settings(run).then((entries) => card.replaceWith(config(entries)), () => card.remove());
    return card;
  }

  function config(entries) {
    const all = h("input", { type: "checkbox", id: "all-config", onchange: draw });
    const find = h("input", { type: "search", placeholder: "Find a setting", "aria-label": "Find a setting", oninput: draw });
    const body = h("tbody", {});
    function draw() {
      const needle = find.value.toLowerCase();
      const wanted = entries.filter((entry) => (needle ? entry.path.toLowerCase().includes(needle) : all.checked || entry.changed));
      body.replaceChildren(...wanted.map((entry) => h("tr", {}, h("th", { scope: "row" }, text.inline(entry.path)),
        h("td", { class: entry.changed ? "changed" : "" }, text.inline(format.value(entry.value))),
        h("td", { class: "dim" }, entry.changed && entry.default !== undefined ? ["was ", text.inline(format.value(entry.default))] : null))));
    }
    draw();
    return section("Settings that differ", entries.filter(({ changed }) => changed).length,
      h("div", { class: "bar" }, h("label", { for: "all-config", class: "inline" }, all, " all of them"), h("span", { class: "grow" }), find),
      h("div", { class: "scroll" }, h("table", { class: "compact config" }, body)));
  }

  function facts(run, several) {
    const found = [
      several ? ["run", h("a", { href: route(["r", run.id]) }, text.inline(run.id))] : null,
      ["status", [view.statusBadge(run.status), run.reason ? h("p", { class: "dim" }, text.inline(run.reason, 400)) : null]],
      [run.kind === "eval" ? "tasks" : "steps", run.steps ? `${format.number(run.step)} / ${format.number(run.steps)}` : format.number(run.step)],
      ["episodes", format.number(run.episodes)],
      ["mean reward", format.number(run.reward)],
      ["sampled tokens", format.number(run.sampled_tokens)],
      ["began", format.moment(run.began_at)],
      ["changed", format.ago(run.changed_at)],
    ].filter(Boolean);
    return h("dl", { class: "facts card wide-facts" }, found.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  async function measured(id) {
    return { id, ...(await view.source.metrics(id)) };
  }

  view.overviewPage = async (page, [run], query, signal) => {
    const ids = [run, ...(query.with ?? "").split(",").filter(Boolean)];
    const [runs, metrics] = await Promise.all([Promise.all(ids.map((id) => view.source.overview(id))), Promise.all(ids.map(measured))]);
    const [main] = runs;
    const curves = view.curves(metrics);
    const summary = h("div", {}, runs.map((one) => facts(one, runs.length > 1)));
    const aside = h("div", { class: "stack" });
    const listed = settings(run);
    const draw = () => aside.replaceChildren(...[
      evaluations(runs.map(({ id, evaluations }) => ({ run: id, entries: evaluations }))),
      failures(run, main.failures, main.episodes), checkpoints(main.checkpoints), listed].filter(Boolean));
    draw();
    page.append(h("h1", { class: "unseen" }, "Run ", text.inline(ids.join(", "))), summary,
      main.note ? h("p", { class: "note" }, text.inline(main.note, 400)) : "", h("div", { class: "columns" }, curves.element, aside));
    if (view.source.live && main.status === "running") follow(metrics, curves, signal, async () => {
      runs[0] = await view.source.overview(run);
      summary.replaceChildren(...runs.map((one) => facts(one, runs.length > 1)));
      return runs[0].status === "running";
    });
  };

  /** New lines of the metrics every few seconds, as long as the run goes on and the page is open and visible. */
  function follow(metrics, curves, signal, refresh) {
    const timer = setInterval(async () => {
      if (document.hidden) return;
      try {
        const [main, ...others] = metrics;
        const newer = await view.source.metrics(main.id, main.steps.at(-1) ?? -1);
        const goesOn = await refresh();
        if (newer.steps.length) {
          for (const name of new Set([...Object.keys(main.series), ...Object.keys(newer.series)])) {
            const before = main.series[name] ?? main.steps.map(() => null);
            main.series[name] = [...before, ...(newer.series[name] ?? newer.steps.map(() => null))];
          }
          main.steps = [...main.steps, ...newer.steps];
          curves.update([main, ...others]);
        }
        if (!goesOn) clearInterval(timer);
      } catch { clearInterval(timer); view.say("The viewer's server is gone."); }
    }, EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
  }
}
