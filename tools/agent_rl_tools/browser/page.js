// In every document before its own scripts: what is to be seen and acted on, by ids that an element keeps for life.
// Roles and names follow the ARIA in HTML and accname rules as far as an agent needs them.
(() => {
  const KEY = Symbol.for("agent-rl page");
  if (globalThis[KEY]) return;
  const CLICKS = new Set(["click", "mousedown", "pointerdown", "dblclick"]);
  const LONGEST_NAME = 200;
  const LEAF_TEXT = 100; // characters of a thing to click that is shown as one line
  const MOST_OPTIONS = 100;
  const BY_TAG = {
    a: "link", area: "link", article: "article", aside: "complementary", button: "button", canvas: "canvas",
    datalist: "listbox", details: "group", dialog: "dialog", fieldset: "group", footer: "contentinfo", form: "form",
    h1: "heading", h2: "heading", h3: "heading", h4: "heading", h5: "heading", h6: "heading", header: "banner",
    hr: "separator", iframe: "iframe", img: "img", li: "listitem", main: "main", meter: "meter", nav: "navigation",
    ol: "list", option: "option", output: "status", progress: "progressbar", select: "combobox", summary: "button",
    table: "table", td: "cell", textarea: "textbox", th: "columnheader", tr: "row", ul: "list", video: "video",
  };
  const BY_TYPE = {
    button: "button", checkbox: "checkbox", image: "button", number: "spinbutton", radio: "radio", range: "slider",
    reset: "button", search: "searchbox", submit: "button",
  };
  const WIDGETS = new Set(("button checkbox combobox link listbox menuitem menuitemcheckbox menuitemradio option radio " +
    "searchbox slider spinbutton switch tab textbox treeitem canvas iframe").split(" "));
  const NAMED_BY_CONTENT = new Set(("button cell columnheader heading link menuitem menuitemcheckbox menuitemradio " +
    "option radio rowheader switch tab tooltip treeitem checkbox").split(" "));
  const SHAPES = new Set(["circle", "ellipse", "line", "path", "polygon", "polyline", "rect"]);
  const COLOURS = {
    "rgb(0,0,0)": "black", "rgb(0,0,255)": "blue", "rgb(165,42,42)": "brown", "rgb(0,255,255)": "cyan",
    "rgb(128,128,128)": "grey", "rgb(0,128,0)": "green", "rgb(0,255,0)": "lime", "rgb(255,0,255)": "magenta",
    "rgb(0,0,128)": "navy", "rgb(128,128,0)": "olive", "rgb(255,165,0)": "orange", "rgb(255,192,203)": "pink",
    "rgb(128,0,128)": "purple", "rgb(255,0,0)": "red", "rgb(0,128,128)": "teal", "rgb(255,255,255)": "white",
    "rgb(255,255,0)": "yellow",
  };
  const SKIPPED = new Set(["script", "style", "noscript", "template", "head", "title", "defs", "clippath"]);
  const listening = new WeakSet();
  const ids = new WeakMap();
  const elements = new Map();
  let last = 0;

  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function addEventListener(type, ...rest) {
    if (CLICKS.has(type) && this instanceof Element) listening.add(this);
    return listen.call(this, type, ...rest);
  };

  const squeeze = (text) => (text ?? "").replace(/\s+/g, " ").trim();
  const tagOf = (element) => element.localName;
  const idOf = (element) => {
    let id = ids.get(element);
    if (!id) {
      id = ++last;
      ids.set(element, id);
      elements.set(id, new WeakRef(element));
    }
    return id;
  };

  function roleOf(element) {
    const given = squeeze(element.getAttribute("role")).split(" ")[0];
    if (given && given !== "presentation" && given !== "none") return given;
    const tag = tagOf(element);
    if (tag === "input") return BY_TYPE[element.type] ?? "textbox";
    if (tag === "a" && !element.hasAttribute("href")) return "";
    if (tag === "select" && (element.multiple || element.size > 1)) return "listbox";
    if (tag === "img" && element.getAttribute("alt") === "") return "";
    if (element.isContentEditable && !element.parentElement?.isContentEditable) return "textbox";
    if (SHAPES.has(tag) && element.ownerSVGElement) return tag;
    return BY_TAG[tag] ?? "";
  }

  const pointed = (element) => getComputedStyle(element).cursor === "pointer";

  function isClickable(element, role) {
    if (WIDGETS.has(role)) return true;
    const tag = tagOf(element);
    if (tag === "body" || tag === "html") return false;
    if (tag === "label") return Boolean(element.control) && !isShown(element.control);
    if (element.onclick || element.onmousedown || element.ondblclick || listening.has(element)) return true;
    if (element.hasAttribute("tabindex") && element.tabIndex >= 0) return true;
    if (element.draggable && tag !== "img") return true;
    if (role === "listitem" && element.parentElement && listening.has(element.parentElement)) return true;
    return pointed(element) && !(element.parentElement && pointed(element.parentElement));
  }

  const isShown = (element) => tagOf(element) === "option" ||
    element.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: false });

  function contentOf(element) {
    const parts = [];
    for (const node of element.childNodes) {
      if (node.nodeType === Node.TEXT_NODE) parts.push(node.data);
      else if (node.nodeType === Node.ELEMENT_NODE && !SKIPPED.has(tagOf(node)) && isShown(node)) {
        parts.push(tagOf(node) === "img" ? ` ${node.alt} ` : contentOf(node));
        if (getComputedStyle(node).display !== "inline") parts.push(" ");
      }
    }
    return parts.join("");
  }

  function nameOf(element, role) {
    const by = squeeze(element.getAttribute("aria-labelledby"));
    if (by) return squeeze(by.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" "));
    const tag = tagOf(element);
    const given = element.getAttribute("aria-label");
    if (squeeze(given)) return squeeze(given);
    if (tag === "input" && ["button", "submit", "reset"].includes(element.type)) {
      return element.value || { submit: "Submit", reset: "Reset" }[element.type] || "";
    }
    if (element.labels?.length) {
      const text = squeeze([...element.labels].map(labelText).join(" "));
      if (text) return text;
    }
    if (element.hasAttribute("alt")) return squeeze(element.getAttribute("alt"));
    if (tag === "fieldset") return squeeze(element.querySelector("legend")?.textContent);
    if (tag === "iframe") return squeeze(element.title);
    if (NAMED_BY_CONTENT.has(role) && tag !== "input") {
      const text = squeeze(contentOf(element));
      if (text) return text;
    }
    return squeeze(element.getAttribute("title") ?? element.getAttribute("placeholder") ?? "");
  }

  const namesShownField = (element) => tagOf(element) === "label" && element.control && isShown(element.control) &&
    !element.control.hasAttribute("aria-label") && !element.control.hasAttribute("aria-labelledby");

  function labelText(label) {
    const copy = label.cloneNode(true);
    copy.querySelectorAll("input, select, textarea, button").forEach((field) => field.remove());
    return copy.textContent;
  }

  const colourName = (rgb) => COLOURS[rgb.replaceAll(" ", "")] ?? rgb;

  // What an element without any text looks like: its colour, or the classes that style it.
  function looksOf(element) {
    if (element.ownerSVGElement) {
      const { fill, stroke } = getComputedStyle(element);
      return colourName(fill !== "none" ? fill : stroke);
    }
    const colour = getComputedStyle(element).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colourName(colour);
    const classes = squeeze(element.getAttribute("class"));
    return classes && `.${classes.replaceAll(" ", ".")}`;
  }

  function valueOf(element) {
    const tag = tagOf(element);
    if (tag === "select") return [...element.selectedOptions].map((option) => squeeze(option.label)).join(", ");
    if (tag === "input") {
      if (["checkbox", "radio", "button", "submit", "reset", "image"].includes(element.type)) return "";
      return element.type === "password" ? "\u2022".repeat(element.value.length) : element.value;
    }
    if (tag === "textarea") return element.value;
    if (tag === "progress" || tag === "meter") return String(element.value);
    if (element.isContentEditable) return squeeze(element.textContent);
    return element.getAttribute("aria-valuetext") ?? element.getAttribute("aria-valuenow") ?? "";
  }

  function statesOf(element) {
    const states = [];
    const is = (name) => element.getAttribute(`aria-${name}`);
    if (element.checked || is("checked") === "true") states.push("checked");
    if (is("selected") === "true") states.push("selected");
    if (is("pressed") === "true") states.push("pressed");
    if (element.disabled || is("disabled") === "true") states.push("disabled");
    if (element.readOnly && tagOf(element) !== "select") states.push("readonly");
    if (element.required || is("required") === "true") states.push("required");
    if (is("expanded") !== null) states.push(is("expanded") === "true" ? "expanded" : "collapsed");
    if (tagOf(element) === "summary") states.push(element.parentElement?.open ? "expanded" : "collapsed");
    if (is("invalid") === "true") states.push("invalid");
    if (element === activeElement()) states.push("focused");
    return states;
  }

  function activeElement() {
    let active = document.activeElement;
    while (active?.shadowRoot?.activeElement) active = active.shadowRoot.activeElement;
    return active === document.body ? null : active;
  }

  const boxOf = (thing) => {
    const { x, y, width, height } = thing.getBoundingClientRect();
    return [x, y, width, height].map(Math.round);
  };

  function childrenOf(element) {
    if (element.shadowRoot) return element.shadowRoot.childNodes;
    if (tagOf(element) === "slot" && element.assignedNodes().length) return element.assignedNodes();
    return element.childNodes;
  }

  function look(most) {
    const rows = [];
    const range = document.createRange();
    const add = (depth, ref, role, name, value, states, box) => {
      rows.push([depth, ref, role, name.slice(0, LONGEST_NAME), value.slice(0, 2 * LONGEST_NAME), states, box]);
    };
    const inside = (element) => {
      for (const child of element.querySelectorAll("*")) {
        if (isClickable(child, roleOf(child)) && isShown(child)) return true;
      }
      return false;
    };
    const visit = (node, depth, named) => {
      if (rows.length >= most) return;
      if (node.nodeType === Node.TEXT_NODE) {
        const text = squeeze(node.data);
        if (!text || named) return;
        range.selectNodeContents(node);
        add(depth, 0, "text", text, "", [], boxOf(range));
        return;
      }
      if (node.nodeType !== Node.ELEMENT_NODE || SKIPPED.has(tagOf(node))) return;
      if (node.getAttribute("aria-hidden") === "true") return;
      const goOn = (below, covered) => {
        for (const child of childrenOf(node)) visit(child, below, covered);
      };
      if (!isShown(node)) {
        if (getComputedStyle(node).display !== "none") goOn(depth, named);
        return;
      }
      const role = roleOf(node);
      const clickable = isClickable(node, role);
      if (!role && !clickable) return goOn(depth, named || namesShownField(node));
      if (role === "option" && tagOf(node) === "option") return;
      const content = role ? "" : squeeze(contentOf(node));
      const leaf = !role && content.length <= LEAF_TEXT && !inside(node);
      let name = role ? nameOf(node, role) : leaf ? content || nameOf(node, role) : "";
      if (!name && (leaf || SHAPES.has(role))) name = looksOf(node);
      const shown = role || (tagOf(node) === "svg" ? "svg" : "clickable");
      add(depth, clickable || SHAPES.has(role) ? idOf(node) : 0, shown, name, valueOf(node), statesOf(node), boxOf(node));
      if (tagOf(node) === "select") {
        for (const option of [...node.options].slice(0, MOST_OPTIONS)) {
          add(depth + 1, 0, "option", squeeze(option.label), "", option.selected ? ["selected"] : [], boxOf(node));
        }
        return;
      }
      if (tagOf(node) === "textarea" || role === "textbox") return;
      goOn(depth + 1, leaf || (NAMED_BY_CONTENT.has(role) && name !== ""));
    };
    if (document.body) visit(document.body, 0, false);
    const { scrollY, innerHeight, innerWidth } = globalThis;
    const height = document.documentElement?.scrollHeight ?? 0;
    return { url: location.href, title: document.title, rows, scroll: [scrollY, innerHeight, innerWidth, height] };
  }

  // --- to act on an element: each returns what is needed, or {error} for the model to read ---

  function find(id) {
    const element = elements.get(id)?.deref();
    if (!element?.isConnected) return { error: "is not on the page any more" };
    if (!isShown(element)) return { error: "is not visible" };
    return { element };
  }

  function within(element, { x, y }) {
    let hit = document.elementFromPoint(x, y);
    while (hit?.shadowRoot?.elementFromPoint(x, y) && hit.shadowRoot.elementFromPoint(x, y) !== hit) {
      hit = hit.shadowRoot.elementFromPoint(x, y);
    }
    if (!hit || hit === element || hit.contains(element) || element.contains(hit)) return null;
    if (element.getRootNode().host === hit) return null;
    return hit.closest("label")?.control === element ? null : hit;
  }

  // Where one could point at the element: over all that is seen of it, the middle of its first box before others.
  function pointsOf(element) {
    const fractions = [0.5, 0.1, 0.3, 0.7, 0.9];
    return [...element.getClientRects()].flatMap(({ x, y, width, height }) => {
      const [left, top] = [Math.max(x, 0), Math.max(y, 0)];
      const [right, bottom] = [Math.min(x + width, innerWidth), Math.min(y + height, innerHeight)];
      if (right < left || bottom < top || !(width > 0 || height > 0)) return [];
      const at = (along, down) => ({ x: left + along * (right - left), y: top + down * (bottom - top) });
      return fractions.flatMap((down) => fractions.map((along) => at(along, down)));
    });
  }

  function locate(id) {
    const { element, error } = find(id);
    if (error) return { error };
    if (element.disabled || element.getAttribute("aria-disabled") === "true") return { error: "is disabled" };
    let points = pointsOf(element);
    if (points.length === 0 || within(element, points[0])) {
      element.scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
      points = pointsOf(element);
    }
    if (points.length === 0) return { error: "has no place on the page" };
    const open = points.find((point) => !within(element, point));
    if (open) return open;
    const cover = within(element, points[0]);
    const text = squeeze(cover.textContent).slice(0, 40);
    return { error: `is covered by another element: <${tagOf(cover)}>${text ? ` ${text}` : ""}` };
  }

  function changed(element) {
    element.dispatchEvent(new Event("input", { bubbles: true }));
    element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // Ready for keys: focused, with all of its text selected. `typed`: false where a value is set and not typed.
  function edit(id, text) {
    const { element, error } = find(id);
    if (error) return { error };
    const tag = tagOf(element);
    if (!(tag === "input" || tag === "textarea" || element.isContentEditable)) return { error: "is no field for text" };
    if (element.disabled || element.readOnly) return { error: element.disabled ? "is disabled" : "can only be read" };
    if (tag === "input" && ["checkbox", "radio", "button", "submit", "reset", "file", "image"].includes(element.type)) {
      return { error: "is no field for text" };
    }
    element.scrollIntoView({ block: "nearest", behavior: "instant" });
    element.focus();
    if (tag === "input" && ["color", "date", "datetime-local", "month", "range", "time", "week"].includes(element.type)) {
      Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(element, text);
      changed(element);
      const refused = element.type !== "range" && element.value !== text.toLowerCase() && element.value !== text;
      return refused ? { error: `takes no such value; it holds a ${element.type}` } : { typed: false };
    }
    if (element.select) element.select();
    else getSelection().selectAllChildren(element);
    return { typed: true, empty: (element.value ?? element.textContent) === "" };
  }

  function choose(id, wanted) {
    const { element, error } = find(id);
    if (error) return { error };
    if (tagOf(element) !== "select") return { error: "is no list to choose from: click it" };
    if (element.disabled) return { error: "is disabled" };
    const options = [...element.options];
    const option = options.find((one) => squeeze(one.label) === squeeze(wanted)) ??
      options.find((one) => one.value === wanted);
    if (!option) {
      const listed = options.slice(0, 20).map((one) => JSON.stringify(squeeze(one.label))).join(", ");
      return { error: `has no option ${JSON.stringify(wanted)}; there are ${listed}` };
    }
    if (option.disabled) return { error: "has this option disabled" };
    element.scrollIntoView({ block: "nearest", behavior: "instant" });
    element.focus();
    if (element.multiple) option.selected = !option.selected;
    else option.selected = true;
    changed(element);
    return {};
  }

  function scroll(sign, atPoint, x, y) {
    let box = atPoint ? document.elementFromPoint(x, y) : null;
    while (box && (box.scrollHeight <= box.clientHeight || getComputedStyle(box).overflowY === "visible")) {
      box = box.parentElement;
    }
    if (box) box.scrollBy({ top: sign * 0.8 * box.clientHeight, behavior: "instant" });
    else scrollBy({ top: sign * 0.8 * innerHeight, behavior: "instant" });
  }

  // Two turns of the event loop: what an action scheduled, such as a form's navigation, has begun by then.
  async function settle() {
    for (let turn = 0; turn < 2; turn += 1) {
      await new Promise((resolve) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = resolve;
        port2.postMessage(0);
      });
    }
  }

  Object.defineProperty(globalThis, KEY, { value: { look, locate, edit, choose, scroll, settle } });
})();
