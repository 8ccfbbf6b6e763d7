"use strict";
/* The page: from the address to what is shown. Every view has an address of its own, so that links and "back" work. */
{
  const { h, route, text } = view;
  view.source = document.documentElement.dataset.source === "files" ? view.filesSource : view.serverSource;
  const page = document.getElementById("page"), trail = document.getElementById("trail");
  let leaving = new AbortController(), shown = null;

  // The parts of an address, and who draws it.
  function find(parts) {
    const [head, run, what] = parts;
    if (head === undefined) return view.runsPage;
    if (head !== "r" || run === undefined) return null;
    if (what === undefined) return view.overviewPage;
    if (what === "episodes") return view.episodesPage;
    if (what === "timeline") return view.timelinePage;
    if (what === "e" && parts.length === 5) return view.episodePage;
    if (what === "e" && parts[5] === "vs" && parts.length === 9) return view.pairPage;
    return null;
  }

  function address() {
    const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
    return { parts: path.split("/").filter(Boolean).map(decodeURIComponent), query: Object.fromEntries(new URLSearchParams(search)) };
  }

  function drawTrail([, run, what, group, member]) {
    if (run === undefined) return trail.replaceChildren();
    const tab = (name, label, parts) => h("a", { href: route(parts), ...(what === name ? { "aria-current": "page" } : {}) }, label);
    trail.replaceChildren(h("a", { href: route(["r", run]), class: "run-name" }, text.inline(run, 40)),
      tab(undefined, "Overview", ["r", run]), tab("episodes", "Episodes", ["r", run, "episodes"]), tab("timeline", "Timeline", ["r", run, "timeline"]),
      what === "e" ? h("a", { href: route(["r", run, "e", group, member]), "aria-current": "page" }, `${group}.${member}`) : "");
  }

  function problem(error) {
    return h("section", { class: "card failure", role: "alert" }, h("h1", {}, "This cannot be shown"), text.block(error.message), h("a", { href: "#/" }, "All runs"));
  }

  /** Where the reader was typing, to go on there when the page is drawn again. */
  function typing() {
    const { name, selectionStart } = document.activeElement ?? {};
    return name && page.contains(document.activeElement) ? { name, selectionStart } : null;
  }

  async function draw() {
    leaving.abort();
    leaving = new AbortController();
    const { signal } = leaving;
    let parts, query;
    try { ({ parts, query } = address()); } catch { ({ parts, query } = { parts: ["?"], query: {} }); }
    const render = find(parts), same = shown === parts.join("/"), cursor = typing();
    const next = document.createDocumentFragment();
    page.setAttribute("aria-busy", "true");
    try {
      if (!render) throw new Error("There is no such page.");
      const content = h("div", { class: "content" });
      await render(content, parts.slice(1), query, signal);
      next.append(content);
    } catch (error) {
      next.append(problem(error));
    }
    if (signal.aborted) return;  // the reader is elsewhere by now
    page.replaceChildren(next);
    page.removeAttribute("aria-busy");
    page.dataset.shows = location.hash;  // for those who wait for a page
    drawTrail(parts);
    document.title = parts.length > 1 ? `${parts.slice(1).join(" ").slice(0, 60)} · agent-rl` : "agent-rl";
    shown = parts.join("/");
    if (cursor) {
      const field = page.querySelector(`[name="${CSS.escape(cursor.name)}"]`);
      field?.focus();
      if (field?.type === "search") field.setSelectionRange(cursor.selectionStart, cursor.selectionStart);
    } else if (!same) {
      scrollTo(0, 0);
      page.focus({ preventScroll: true });
    }
  }

  // --- keys that hold everywhere ---

  function walk(by) {
    const links = [...page.querySelectorAll("[data-walk] a")];
    const at = links.indexOf(document.activeElement);
    const next = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  function up() {
    const { parts } = address();
    if (parts[2] === "e") location.hash = route(parts.length > 5 ? parts.slice(0, 5) : ["r", parts[1], "episodes"]);
    else location.hash = parts.length > 2 ? route(["r", parts[1]]) : "#/";
  }

  function search() {
    const field = page.querySelector("[data-search]");
    field?.focus();
    field?.select();
  }

  const go = (what) => () => { const { parts } = address(); if (parts[1]) location.hash = route(["r", parts[1], ...what]); };
  view.keys.bind({
    j: ["next", () => walk(1)], k: ["previous", () => walk(-1)], ArrowDown: ["next", () => walk(1)], ArrowUp: ["previous", () => walk(-1)],
    Enter: ["open", () => {}], Escape: ["back", up], "/": ["search", search], "?": ["this help", view.keys.help], t: ["dark or light", view.theme.toggle],
    g: ["overview", go([])], e: ["episodes", go(["episodes"])], l: ["timeline", go(["timeline"])],
  });

  document.getElementById("theme").addEventListener("click", view.theme.toggle);
  document.getElementById("keys").addEventListener("click", view.keys.help);
  addEventListener("hashchange", draw);
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);  // the token is a cookie now
  draw();
}
