"use strict";
/* When everything happened: a row per episode, generation, tools and waiting over wall time; zoom and pan. */
{
  const { h, format, route, text } = view;
  const ROW = 14, BAR = 10, LEFT = 72, AXIS = 24;
  const KINDS = ["setup", "generation", "tools", "waiting"];

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const names = [...KINDS, "learn", "text", "dim", "line", "bad"];
    return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  /** A round number of seconds so that about `count` ticks fit into `span`. */
  function tick(span, count) {
    const rough = span / count, power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  }

  function busy(episodes) {
    const sums = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
    for (const { spans, duration_s } of episodes) {
      let used = 0;
      for (const [kind, , duration] of spans) { sums[kind] += duration; used += duration; }
      sums.waiting += Math.max(0, duration_s - used);
    }
    return sums;
  }

  function picture(found, run, onlook) {
    const { episodes, trainer } = found;
    const lanes = [...(trainer.length ? [{ trainer: true }] : []), ...episodes];
    const zero = episodes.reduce((low, { began_at }) => Math.min(low, began_at), Infinity);
    const end = episodes.reduce((high, { began_at, duration_s }) => Math.max(high, began_at + duration_s), zero + 1e-3);
    const canvas = h("canvas", { class: "timeline", tabindex: 0, role: "img", "aria-label": `Timeline of ${episodes.length} episodes over ${format.seconds(end - zero)}; plus and minus zoom, arrow keys move, Enter opens the episode` });
    let from = 0, to = end - zero, pointed = -1;

    const x = (time, width) => LEFT + ((time - from) / (to - from)) * (width - LEFT);

    function draw() {
      const width = canvas.clientWidth, height = AXIS + lanes.length * ROW, dense = devicePixelRatio || 1;
      canvas.width = width * dense;
      canvas.height = height * dense;
      canvas.style.height = `${height}px`;
      const pen = canvas.getContext("2d"), paint = colours();
      pen.scale(dense, dense);
      pen.font = "11px system-ui, sans-serif";
      pen.textBaseline = "middle";
      const step = tick(to - from, Math.max(2, width / 120));
      for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
        pen.fillStyle = paint.line;
        pen.fillRect(x(at, width), AXIS - 4, 1, height);
        pen.fillStyle = paint.dim;
        pen.fillText(format.seconds(at), x(at, width) + 3, AXIS / 2);
      }
      pen.save();
      lanes.forEach((lane, i) => row(pen, paint, lane, AXIS + i * ROW + (ROW - BAR) / 2, width, i === pointed));
      pen.restore();
    }

    function row(pen, paint, lane, y, width, here) {
      pen.fillStyle = here ? paint.text : paint.dim;
      pen.fillText(lane.trainer ? "trainer" : `${lane.group}.${lane.member}`, 4, y + BAR / 2);
      const bar = (colour, began, duration) => {
        const left = Math.max(LEFT, x(began, width)), right = Math.min(width, x(began + duration, width));
        if (right < LEFT || left > width) return;
        pen.fillStyle = colour;
        pen.fillRect(left, y, Math.max(1, right - left), BAR);
      };
      if (lane.trainer) return trainer.forEach(([kind, began_at, duration]) => bar(kind === "wait for rollouts" ? paint.waiting : paint.learn, began_at - zero, duration));
      const began = lane.began_at - zero;
      bar(paint.waiting, began, lane.duration_s);
      for (const [kind, at, duration] of lane.spans) bar(paint[kind], began + at, duration);
      if (lane.failure) { pen.fillStyle = paint.bad; pen.fillRect(Math.min(width - 3, Math.max(LEFT, x(began + lane.duration_s, width))), y - 1, 3, BAR + 2); }
    }

    function zoom(factor, around = (from + to) / 2) {
      const span = Math.min(end - zero, Math.max(1e-3, (to - from) * factor));
      from = Math.max(0, Math.min(end - zero - span, around - ((around - from) / (to - from)) * span));
      to = from + span;
      draw();
    }

    function pan(part) {
      const by = Math.max(-from, Math.min(end - zero - to, part * (to - from)));
      from += by;
      to += by;
      draw();
    }

    function point(index) {
      pointed = Math.max(-1, Math.min(lanes.length - 1, index));
      onlook(lanes[pointed]);
      draw();
    }

    const open = () => { const lane = lanes[pointed]; if (lane && !lane.trainer) location.hash = route(["r", run, "e", lane.group, lane.member]); };
    const when = (event) => from + ((event.offsetX - LEFT) / (canvas.clientWidth - LEFT)) * (to - from);
    let grabbed = null, moved = false;
    canvas.addEventListener("wheel", (event) => { if (event.ctrlKey || event.metaKey) { event.preventDefault(); zoom(event.deltaY > 0 ? 1.25 : 0.8, when(event)); } }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => { grabbed = event.offsetX; moved = false; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => { grabbed = null; if (!moved) open(); });
    canvas.addEventListener("pointermove", (event) => {
      if (grabbed !== null && Math.abs(event.offsetX - grabbed) > 3) { pan((grabbed - event.offsetX) / (canvas.clientWidth - LEFT)); grabbed = event.offsetX; moved = true; }
      else if (grabbed === null) point(Math.floor((event.offsetY - AXIS) / ROW));
    });
    canvas.addEventListener("keydown", (event) => {
      const act = { "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1.4), ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), ArrowUp: () => point(pointed - 1), ArrowDown: () => point(pointed + 1), Enter: open, 0: () => zoom(1e9) }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
    return { canvas, draw, zoom };
  }

  function looked(lane) {
    if (!lane) return ["Point at an episode; click opens it. Ctrl and wheel, or + and −, zoom; drag moves."];
    if (lane.trainer) return ["The trainer: learning and updates of weights, and its waits for rollouts."];
    const parts = busy([lane]);
    return [h("strong", {}, `${lane.group}.${lane.member} `), text.inline(lane.task, 60), ` · reward ${format.number(lane.reward)} · ${format.seconds(lane.duration_s)}: `,
      KINDS.map((kind) => `${kind} ${format.seconds(parts[kind])}`).join(", "), lane.failure ? [" · ", text.inline(lane.failure, 120)] : null];
  }

  view.timelinePage = async (page, [run], query, signal) => {
    const first = Number(query.first ?? 0) || 0, count = Number(query.count ?? 8) || 8;
    const found = await view.source.timeline(run, first, count);
    const go = (changes) => { location.hash = route(["r", run, "timeline"], { first, count, ...changes }); };
    const field = (name, value, label) => h("label", { class: "inline" }, `${label} `, h("input", { type: "number", min: name === "count" ? 1 : 0, max: name === "count" ? 64 : null, name, value, onchange: (event) => go({ [name]: event.target.value }) }));
    const bar = h("div", { class: "bar" }, h("h1", {}, "Timeline"), field("first", first, "from group"), field("count", count, "groups"),
      h("button", { type: "button", disabled: first <= 0, onclick: () => go({ first: Math.max(0, first - count) }) }, "← earlier"),
      h("button", { type: "button", disabled: first + count >= found.groups, onclick: () => go({ first: first + count }) }, "later →"));
    if (!found.episodes.length) return void page.append(bar, h("p", { class: "empty" }, "No finished group in this range."));
    const detail = h("p", { class: "dim detail", role: "status" }, looked(null));
    const drawn = picture(found, run, (lane) => detail.replaceChildren(...looked(lane).flat().filter(Boolean)));
    const sums = busy(found.episodes), total = Object.values(sums).reduce((a, b) => a + b, 0) || 1;
    const legend = h("ul", { class: "legend" }, KINDS.map((kind) => h("li", {}, h("span", { class: `key ${kind}` }), `${kind} ${format.percent(sums[kind] / total)}`)), found.trainer.length ? h("li", {}, h("span", { class: "key learn" }), "trainer") : null);
    page.append(bar, h("div", { class: "bar" }, legend, h("span", { class: "grow" }), h("button", { type: "button", "aria-label": "Zoom in", onclick: () => drawn.zoom(0.7) }, "+"), h("button", { type: "button", "aria-label": "Zoom out", onclick: () => drawn.zoom(1.4) }, "−"), h("button", { type: "button", onclick: () => drawn.zoom(1e9) }, "all")), detail, drawn.canvas);
    new ResizeObserver(drawn.draw).observe(drawn.canvas);
    addEventListener("themechange", drawn.draw, { signal });
    view.keys.bind({ "+": ["zoom in", () => drawn.zoom(0.7)], "-": ["zoom out", () => drawn.zoom(1.4)], n: ["later groups", () => { if (first + count < found.groups) go({ first: first + count }); }], p: ["earlier groups", () => { if (first > 0) go({ first: Math.max(0, first - count) }); }] }, signal);
  };
}
