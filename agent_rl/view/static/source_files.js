"use strict";
/*
 * Where data comes from, second kind: the files of `agent-rl view --static`. A page from disk may not fetch, but it may
 * load scripts: each file under data/ is one call of `view.deliver(name, json)`. Filters run here instead of in SQL.
 */
{
  const delivered = new Map();  // parsed files by name
  const KEPT = 40;

  view.deliver = (name, json) => delivered.set(name, JSON.parse(json));

  async function load(name) {
    if (!delivered.has(name)) {
      await new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => { script.remove(); resolve(); };
        script.onerror = () => { script.remove(); reject(new Error(`data/${name}.js is missing: export again.`)); };
        document.head.append(script);
      });
    }
    const content = delivered.get(name);
    delivered.delete(name);  // the latest are last
    delivered.set(name, content);
    while (delivered.size > KEPT) delivered.delete(delivered.keys().next().value);
    return content;
  }

  const tables = new Map();

  /** All rows of a run's table, as objects. */
  async function table(run) {
    if (!tables.has(run)) {
      const { tables: count } = await folder(run);
      const rows = [];
      for (let page = 0; page < count; page++) {
        const { columns, rows: cells, tasks } = await load(`${await number(run)}/table-${pad(page)}`);
        for (const row of cells) {
          const entry = Object.fromEntries(columns.map((column, i) => [column, row[i]]));
          rows.push({ ...entry, ...tasks[entry.group] });
        }
      }
      tables.set(run, rows);
    }
    return tables.get(run);
  }

  const pad = (page) => String(page).padStart(4, "0");

  async function folder(run) {
    const found = (await load("runs")).runs.find(({ id }) => id === run);
    if (!found) throw new Error(`There is no run ${run} in this export.`);
    return found;
  }

  const number = async (run) => (await folder(run)).number;

  async function page(kind, run, group) {
    const row = (await table(run)).find((entry) => entry.group === group);
    if (!row) throw new Error(`Group ${group} is not in this export.`);
    return load(`${await number(run)}/${kind}-${pad(row.page)}`);
  }

  async function ofEpisode(kind, run, group, member) {
    const found = (await page(kind, run, Number(group)))[`${group}/${member}`];
    if (!found) throw new Error(`Episode ${member} of group ${group} is not in this export.`);
    return found;
  }

  // --- filters: what `agent_rl/view/queries.py` says in SQL ---

  const RANGES = { reward: "reward", turns: "turns", tokens: "tokens", duration: "duration_s", step: "step" };
  const EQUAL = { stop: "stop_reason", kind: "failure_kind", environment: "environment" };

  function tests(query) {
    const found = [];
    for (const [name, field] of Object.entries(RANGES)) {
      const low = query[`${name}_min`] ?? "", high = query[`${name}_max`] ?? "";
      if (low !== "") found.push((row) => row[field] !== null && row[field] >= Number(low));
      if (high !== "") found.push((row) => row[field] !== null && row[field] <= Number(high));
    }
    for (const [name, field] of Object.entries(EQUAL)) if (query[name]) found.push((row) => row[field] === query[name]);
    if (query.owner) found.push((row) => row.failure_owner === query.owner);
    if (query.tag) found.push((row) => row.tags.includes(query.tag));
    if (query.outcome) found.push((row) => row.outcome === query.outcome);
    if (query.task) {
      const needle = query.task.toLowerCase();
      found.push((row) => row.text.toLowerCase().includes(needle));
    }
    return found;
  }

  function compare(sort) {
    const down = sort.startsWith("-"), field = sort.replace(/^-/, "");
    return (a, b) => {
      const [x, y] = [a[field], b[field]];
      if (x !== y) {
        if (x === null || y === null) return x === null ? 1 : -1;  // what is unknown comes last, up or down
        return (x < y ? -1 : 1) * (down ? -1 : 1);
      }
      return a.group - b.group || a.member - b.member;
    };
  }

  function histogram(rows, bins = 24) {
    const rewards = rows.map((row) => row.reward).filter((reward) => reward !== null);
    if (!rewards.length) return [];
    const low = rewards.reduce((a, b) => Math.min(a, b)), high = rewards.reduce((a, b) => Math.max(a, b));
    const width = (high - low) / bins || 1;
    const counts = Array.from({ length: high > low ? bins : 1 }, (_, i) => ({ low: low + i * width, high: low + (i + 1) * width, count: 0 }));
    for (const reward of rewards) counts[Math.min(counts.length - 1, Math.floor((reward - low) / width))].count++;
    return counts;
  }

  view.filesSource = {
    live: false,
    runs: async () => load("runs"),
    overview: async (run) => load(`${await number(run)}/overview`),
    settings: async (run) => (await load(`${await number(run)}/settings`)).settings,
    metrics: async (run) => load(`${await number(run)}/metrics`),
    choices: async (run) => load(`${await number(run)}/choices`),
    async episodes(run, { sort = "group", offset = 0, limit = 100, ...query }) {
      const all = await table(run), asked = tests(query);
      const found = all.filter((row) => asked.every((test) => test(row))).sort(compare(sort));
      return { all: all.length, total: found.length, rows: found.slice(Number(offset), Number(offset) + Number(limit)), histogram: histogram(found) };
    },
    episode: (run, group, member) => ofEpisode("episodes", run, group, member),
    tokens: (run, group, member) => ofEpisode("tokens", run, group, member),
    async timeline(run, first, count) {
      const { groups } = await folder(run);
      let from = Number(first);
      const spans = [], trainer = [];
      const wanted = [...new Set((await table(run)).map((row) => row.group))].filter((group) => group >= from).slice(0, count);
      for (const file of new Set((await table(run)).filter((row) => wanted.includes(row.group)).map((row) => row.page))) {
        const content = await load(`${await number(run)}/timeline-${pad(file)}`);
        spans.push(...content.episodes.filter((episode) => wanted.includes(episode.group)));
        trainer.push(...content.trainer);
      }
      return { episodes: spans, trainer, groups };
    },
    async partners(task) {
      const found = [];
      for (const { id } of (await load("runs")).runs) {
        const same = (await table(id)).filter((row) => row.task === task).slice(0, 64);
        found.push(...same.map((row) => ({ run: id, ...row })));
      }
      return { episodes: found };
    },
  };
}
