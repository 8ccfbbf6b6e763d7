"use strict";
/* Dark or light, before the first paint: the system's choice, until the reader makes another. */
{
  const KEY = "agent-rl-theme";
  const root = document.documentElement;

  function remembered() {
    try { return localStorage.getItem(KEY); } catch { return null; }  // storage may be forbidden
  }

  function current() {
    return root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  function toggle() {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    try { localStorage.setItem(KEY, root.dataset.theme); } catch { /* for this page only, then */ }
    dispatchEvent(new Event("themechange"));
  }

  const chosen = remembered();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  window.view = { theme: { current, toggle } };
}
