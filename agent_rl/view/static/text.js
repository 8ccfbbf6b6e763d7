"use strict";
/*
 * Text that nobody vouches for: models, tools and web pages wrote it. It cannot act (it is text nodes), and it cannot
 * deceive either: control characters, invisible ones and those that reorder their neighbours become visible marks, and
 * <bdi> keeps right-to-left text from moving what stands around it.
 */
{
  const { h, format } = view;
  const LIMIT = 20_000;  // characters shown at first
  const CHUNK = 100_000;  // characters added per frame by "show all"

  const NAMES = {
    0x00ad: "SHY", 0x061c: "ALM", 0x180e: "MVS", 0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM",
    0x200f: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO",
    0x202e: "RLO", 0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM",
  };
  // ANSI sequences; then controls but tab and newline, invisible and reordering characters, lone surrogates, tag
  // characters.
  const ODD = new RegExp(
    "\\u001b\\[[0-9;?]*[ -/]*[@-~]" +
    "|[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e" +
    "\\u2060-\\u2069\\ufeff\\ufff9-\\ufffb]|\\p{Surrogate}|[\\u{e0000}-\\u{e007f}]", "gu");

  function symbol(character) {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "\u2421";
    return `⟨${NAMES[code] ?? code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  }

  function mark(found) {
    const code = found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    const shown = found[0] === "\u001b" && found.length > 1 ? symbol("\u001b") + found.slice(1) : symbol(found);
    return h("span", { class: "mark", title: `U+${code}` }, shown);
  }

  function joinsEmoji(text, at) {
    const before = text.slice(Math.max(0, at - 3), at), after = text.slice(at + 1, at + 3);
    return /\p{Extended_Pictographic}(\ufe0f|\p{Emoji_Modifier})?$/u.test(before) && /^\p{Extended_Pictographic}/u.test(after);
  }

  /** Nodes that show `text`, odd characters marked. */
  function nodes(text) {
    const parts = [];
    let done = 0;
    for (const match of text.matchAll(ODD)) {
      if (match[0] === "\u200d" && joinsEmoji(text, match.index)) continue;
      parts.push(text.slice(done, match.index), mark(match[0]));
      done = match.index + match[0].length;
    }
    parts.push(text.slice(done));
    return parts.filter((part) => part !== "");
  }

  /** Where to cut at about `at`, not between the halves of a surrogate pair. */
  function cut(text, at) {
    const code = text.charCodeAt(at - 1);
    return at < text.length && code >= 0xd800 && code < 0xdc00 ? at - 1 : Math.min(at, text.length);
  }

  /** A short text on one line: a name, an id, a tag. */
  function inline(text, limit = 200) {
    const whole = String(text ?? "");
    const shown = whole.slice(0, cut(whole, limit));
    const rest = whole.length > shown.length ? h("span", { class: "dim" }, `… ${format.bytes(whole.length)}`) : null;
    return h("bdi", { class: "untrusted" }, nodes(shown.replaceAll("\n", "⏎")), rest);
  }

  /** Where to end a piece that may be `at` characters long: behind a line, if one ends in its second half. */
  function end(text, from, at) {
    const line = text.lastIndexOf("\n", from + at - 1) + 1;
    return from + at < text.length && line > from + at / 2 ? line : cut(text, from + at);
  }

  /** A text with its line breaks; a long one is cut, with a button for the rest. Pieces out of sight cost no layout. */
  function block(text, className = "") {
    const whole = String(text ?? "");
    const piece = (from, to) => h("div", { class: "chunk", dir: "auto" }, h("bdi", {}, nodes(whole.slice(from, to))));
    let done = end(whole, 0, LIMIT);
    const box = h("div", { class: `text ${className}` }, piece(0, done));
    if (done < whole.length) {
      const more = () => {
        const next = end(whole, done, CHUNK);
        box.append(piece(done, next));
        done = next;
        if (done < whole.length) requestAnimationFrame(more);
      };
      box.append(h("button", { type: "button", class: "more", onclick: (event) => { event.target.remove(); more(); } },
        `… show all ${format.bytes(whole.length)}`));
    }
    return box;
  }

  /** A short text where only text can stand, such as an option of a list. */
  function plain(text, limit = 80) {
    return String(text ?? "").slice(0, limit).replace(ODD, symbol).replaceAll("\n", "⏎");
  }

  view.text = { inline, block, plain, nodes };
}
