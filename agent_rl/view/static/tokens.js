"use strict";
/*
 * The rows of tokens that the trainer saw, every token a span in the colour of a quantity. An episode whose history was
 * rewritten has several segments: tabs, each with the place where it left the row before it.
 */
{
  const { h, format, text, quantities } = view;
  const BATCH = 40;  // pieces drawn at once

  function shown(token) {
    return token === "" ? "⋯" : token;
  }

  function paint(element, { heat, lean, kind }) {
    element.className = heat !== undefined ? "token heat" : lean !== undefined ? `token ${lean > 0 ? "plus" : "minus"}` : kind !== undefined ? `token kind c${kind}` : "token";
    element.style.setProperty("--v", String(heat ?? Math.abs(lean ?? 0)));
  }

  /** A segment in pieces: the sampled tokens of one turn, or what was inserted between two. */
  function pieces(segment) {
    const found = [];
    segment.turns.forEach((turn, i) => {
      const last = found.at(-1);
      const fork = segment.fork?.at === i && i > 0;
      if (!last || last.turn !== turn || fork) found.push({ turn, from: i, to: i + 1, fork });
      else last.to = i + 1;
    });
    return found;
  }

  function details(segment, i, tokenText) {
    const rows = [["token", tokenText === null ? null : JSON.stringify(tokenText)], ["id", segment.ids[i]], ["position", i]];
    if (segment.turns[i] !== null) rows.push(["turn", segment.turns[i] + 1]);
    for (const name of quantities.names) {
      const value = quantities.measure(name, segment)?.values[i];
      if (value !== null && value !== undefined) rows.push([quantities.title(name), name === "mask" ? (value ? "sampled" : "inserted") : value]);
    }
    if (segment.trained?.weights?.[i] !== undefined && segment.trained.weights[i] !== null) rows.push(["weight in the loss", segment.trained.weights[i]]);
    return rows.filter(([, value]) => value !== null).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, typeof value === "number" ? String(Number(value.toPrecision(6))) : text.inline(value, 120))));
  }

  function legend(measured) {
    if (measured.legend) return h("ul", { class: "legend" }, measured.legend.map(([name, { kind }]) => h("li", {}, h("span", { class: `key fill c${kind}` }), name)));
    const [low, high] = measured.ends;
    return h("div", { class: "legend" }, low, h("span", { class: `ramp ${measured.scale}`, "aria-hidden": "true" }), high);
  }

  /** Draws one segment. `recolour(measured)` changes the colours of what is there and of what comes. */
  function row(segment, texts, card) {
    let measured = null, rest = pieces(segment);
    const body = h("div", { class: "tokens", tabindex: 0, "aria-label": "Tokens; arrow keys walk from one to the next" });
    const more = h("button", { type: "button", class: "more" });

    function token(i) {
      const part = texts === null ? String(segment.ids[i]) : shown(texts[i]);
      const element = h("span", { "data-i": i }, texts === null ? [part, " "] : view.text.nodes(part.replaceAll("\n", "⏎\n")));
      if (measured) paint(element, measured.colour(i));
      return element;
    }

    function piece({ turn, from, to, fork }) {
      const mine = Array.from({ length: to - from }, (_, k) => token(from + k));
      return h("div", { class: `piece ${turn === null ? "inserted" : "sampled"}` },
        h("span", { class: "gutter" }, fork ? h("span", { class: "badge" }, "fork") : null, turn === null ? "inserted" : `turn ${turn + 1}`, h("span", { class: "dim" }, ` · ${format.number(to - from)}`)),
        h("div", { class: "row-of-tokens", dir: "ltr" }, mine));
    }

    function draw(count = BATCH) {
      body.append(...rest.splice(0, count).map(piece));
      more.textContent = `${rest.length} more pieces`;
      more.hidden = !rest.length;
    }

    function look(element) {
      body.querySelector(".here")?.classList.remove("here");
      if (!element) return card.replaceChildren(h("p", { class: "dim" }, "Point at a token, or walk with the arrow keys."));
      element.classList.add("here");
      card.replaceChildren(h("dl", { class: "facts" }, details(segment, Number(element.dataset.i), texts === null ? null : texts[Number(element.dataset.i)])));
    }

    body.addEventListener("pointerover", (event) => { const over = event.target.closest("[data-i]"); if (over) look(over); });
    body.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const at = Number(body.querySelector(".here")?.dataset.i ?? (by > 0 ? -1 : 1));
      const next = body.querySelector(`[data-i="${at + by}"]`);
      if (!next) return;
      look(next);
      next.scrollIntoView({ block: "nearest" });
      view.say(card.innerText);
    });
    more.addEventListener("click", () => draw());
    new IntersectionObserver((entries) => { if (entries.some(({ isIntersecting }) => isIntersecting) && rest.length) draw(); }, { rootMargin: "600px" }).observe(more);
    look(null);

    return {
      element: h("div", {}, body, more),
      recolour(next) {
        measured = next;
        if (!body.childElementCount) return draw();
        for (const element of body.querySelectorAll("[data-i]")) paint(element, measured.colour(Number(element.dataset.i)));
      },
      show(turn) {
        const at = segment.turns.indexOf(turn);
        while (at >= 0 && rest.length && rest[0].from <= at) draw();
        body.querySelector(`[data-i="${at}"]`)?.scrollIntoView({ block: "center" });
      },
    };
  }

  /** The overlay of tokens that `agent_rl/view/tokens.py` describes: an element, and a card for the token pointed at. */
  view.tokens = (found, query, change) => {
    const { segments, texts, note } = found;
    if (!segments.length || !segments.some(({ ids }) => ids.length)) return { element: h("p", { class: "empty" }, "This episode has no tokens: its agent is a program or an endpoint that gives none."), card: null };
    const at = Math.min(segments.length - 1, Math.max(0, Number(query.segment ?? 0) || 0));
    const segment = segments[at];
    const offered = quantities.names.filter((name) => quantities.measure(name, segment));
    let colour = offered.includes(query.colour) ? query.colour : "mask";
    const card = h("div", { class: "token-card card", role: "group", "aria-label": "Token" });
    const drawn = row(segment, texts?.[at] ?? null, card);
    const scale = h("div", {});
    const recolour = () => { const measured = quantities.measure(colour, segment); scale.replaceChildren(legend(measured)); drawn.recolour(measured); };
    const choose = h("select", { "aria-label": "Colour by", onchange: () => { colour = choose.value; recolour(); change({ colour }); } },
      quantities.names.map((name) => h("option", { value: name, selected: name === colour, disabled: !offered.includes(name) }, offered.includes(name) ? quantities.title(name) : `${quantities.title(name)} (not recorded)`)));
    const tabs = segments.length < 2 ? null : h("div", { class: "tabs", role: "group", "aria-label": "Segments" }, segments.map((one, i) => h("button", {
      type: "button", "aria-pressed": String(i === at), onclick: () => change({ segment: i || "" }, true) }, `segment ${i + 1}`, h("span", { class: "dim" }, ` ${format.number(one.ids.length)}`))));
    recolour();
    if (query.turn) requestAnimationFrame(() => drawn.show(Number(query.turn)));
    const fork = segment.fork ? h("p", { class: "note" }, `Shares its first ${format.number(segment.fork.at)} tokens with segment ${segment.fork.from + 1}; from there on its history was rewritten.`) : null;
    const element = h("div", {}, tabs,
      h("div", { class: "bar sticky" }, h("label", { class: "inline" }, "colour by ", choose), scale), fork,
      note ? h("p", { class: "note" }, text.inline(note, 400)) : null, drawn.element);
    return { element, card };
  };
}
