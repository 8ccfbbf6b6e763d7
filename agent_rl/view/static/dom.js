"use strict";
/* Elements from data. Text becomes text nodes: no markup is ever parsed, no attribute can hold a script. */
{
  const SVG = "http://www.w3.org/2000/svg";

  function build(element, properties, children) {
    for (const [name, value] of Object.entries(properties ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
      else if (name.startsWith("on")) throw new TypeError(`${name} takes a function`);
      else if (name === "style") for (const [key, part] of Object.entries(value)) element.style.setProperty(key, part);
      else if (name === "href" && !String(value).startsWith("#")) throw new TypeError("links stay on this page");
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }

  /** An HTML element: `h("a", { href: "#/", onclick: f }, "text", child, [more])`. */
  view.h = (tag, properties, ...children) => build(document.createElement(tag), properties, children);
  /** An SVG element. */
  view.s = (tag, properties, ...children) => build(document.createElementNS(SVG, tag), properties, children);

  /** A hash route from its parts and query; parts are encoded, empty values left out. */
  view.route = (parts, query = {}) => {
    const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    const search = new URLSearchParams(given).toString();
    return `#/${parts.map((part) => encodeURIComponent(part)).join("/")}${search ? `?${search}` : ""}`;
  };

  /** Tell those who cannot see it. */
  view.say = (text) => { document.getElementById("said").textContent = text; };
}
