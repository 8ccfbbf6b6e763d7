"use strict";
/*
 * Where data comes from, first kind: the server that sent this page. Every method returns a promise of plain data;
 * `source_files.js` answers the same questions from files.
 */
{
  async function get(path, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    const response = await fetch(`api/${path}?${new URLSearchParams(given)}`, { headers: { Accept: "application/json" } });
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(body.error ?? `The viewer's server answered ${response.status}.`);
    return body;
  }

  const of = (run) => `runs/${encodeURIComponent(run)}`;

  view.serverSource = {
    live: true,
    runs: () => get("runs"),
    overview: (run) => get(`${of(run)}/overview`),
    settings: async (run) => (await get(`${of(run)}/settings`)).settings,
    metrics: (run, after = -1) => get(`${of(run)}/metrics`, { after }),
    /** `query`: filters by name, `sort`, `offset`, `limit`. */
    episodes: (run, query) => get(`${of(run)}/episodes`, query),
    choices: (run) => get(`${of(run)}/choices`),
    episode: (run, group, member) => get(`${of(run)}/episodes/${group}/${member}`),
    tokens: (run, group, member) => get(`${of(run)}/episodes/${group}/${member}/tokens`),
    timeline: (run, first, count) => get(`${of(run)}/timeline`, { first, count }),
    /** Episodes of the same task in all runs that are open. */
    partners: (task) => get("partners", { task }),
  };
}
