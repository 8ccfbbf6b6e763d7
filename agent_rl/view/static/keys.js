"use strict";
/* Keyboard shortcuts: some hold everywhere, others as long as their page is shown. */
{
  const { h } = view;
  const everywhere = new Map(), here = new Map();

  /** Bind keys: `{ "j": ["next episode", action], ... }`. Those of a page end with it, when its `signal` aborts. */
  function bind(shortcuts, signal = null) {
    if (signal?.aborted) return;
    for (const [key, [what, action]] of Object.entries(shortcuts)) (signal ? here : everywhere).set(key, { what, action });
    signal?.addEventListener("abort", () => here.clear());
  }

  function isTyping(target) {
    return target instanceof HTMLElement && target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;  // it closes itself
    if (isTyping(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "Enter" && event.target.matches("a, button, summary")) return;
    const bound = here.get(event.key) ?? everywhere.get(event.key);
    if (!bound) return;
    event.preventDefault();
    bound.action(event);
  });

  function help() {
    const dialog = document.getElementById("help");
    const rows = [...here, ...everywhere].map(([key, { what }]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)));
    const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
    dialog.replaceChildren(h("h2", { id: "help-title" }, "Keyboard"), h("dl", { class: "keys" }, rows), close);
    dialog.showModal();
  }

  view.keys = { bind, help };
}
