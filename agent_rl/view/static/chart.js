"use strict";
/* A small line chart: raw values faint, smoothed ones strong, the value under the pointer written above. */
{
  const { h, s, format } = view;
  const WIDTH = 320, HEIGHT = 120, POINTS = 500;

  /** Exponential moving average without the bias of its start; gaps stay gaps. */
  function smooth(values, weight) {
    let mean = 0, mass = 0;
    return values.map((value) => {
      if (typeof value !== "number") return null;
      mean = weight * mean + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return mean / mass;
    });
  }

  /** At most 2 * POINTS indices that keep each bucket's extremes, so that a spike is never lost. */
  function thin(values) {
    if (values.length <= 2 * POINTS) return values.map((_, i) => i);
    const kept = new Set([0, values.length - 1]);
    const size = values.length / POINTS;
    for (let bucket = 0; bucket < POINTS; bucket++) {
      const from = Math.floor(bucket * size), to = Math.floor((bucket + 1) * size);
      let low = from, high = from;
      for (let i = from; i < to; i++) {
        if (values[i] < values[low]) low = i;
        if (values[i] > values[high]) high = i;
      }
      kept.add(low).add(high);
    }
    return [...kept].sort((a, b) => a - b);
  }

  function extent(lists) {
    let low = Infinity, high = -Infinity;
    for (const list of lists) {
      for (const value of list) {
        if (typeof value !== "number") continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (low > high) return [0, 1];
    return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [low, high];
  }

  function path(steps, values, x, y) {
    let pen = "M";
    const parts = [];
    for (const i of thin(values)) {
      if (typeof values[i] !== "number") { pen = "M"; continue; }
      parts.push(`${pen}${x(steps[i]).toFixed(2)},${y(values[i]).toFixed(2)}`);
      pen = "L";
    }
    return parts.join("");
  }

  function nearest(steps, step) {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle; else high = middle;
    }
    return step - steps[low] < steps[high] - step ? low : high;
  }

  /**
   * `lines`: [{ name, steps, values }], the first one in the main colour. `weight` of the smoothing, 0 for none.
   */
  function chart(title, lines, weight) {
    const [first, last] = extent(lines.map(({ steps }) => steps));
    const [low, high] = extent(lines.map(({ values }) => values));
    const x = (step) => (WIDTH * (step - first)) / (last - first || 1);
    const y = (value) => HEIGHT - (HEIGHT * (value - low)) / (high - low || 1);
    const drawn = lines.flatMap(({ steps, values }, i) => [
      weight > 0 ? s("path", { d: path(steps, values, x, y), class: `line raw c${i % 6}` }) : null,
      s("path", { d: path(steps, smooth(values, weight), x, y), class: `line c${i % 6}` }),
    ]);
    const cursor = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    const picture = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, drawn, cursor);
    const readout = h("output", { class: "readout" });
    const main = lines[0];
    let at = main.steps.length - 1;

    function point(index) {
      at = Math.max(0, Math.min(main.steps.length - 1, index));
      const step = main.steps[at];
      const values = lines.map(({ name, steps, values }) => {
        const value = format.number(values[nearest(steps, step)]);
        return lines.length > 1 ? `${name} ${value}` : value;
      });
      readout.textContent = `${values.join(" · ")}  @${step}`;
      for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(step));
      cursor.setAttribute("visibility", "visible");
    }

    function rest() {
      const values = lines.map(({ values }) => format.number(values.findLast((value) => typeof value === "number")));
      readout.textContent = values.join(" · ");
      cursor.setAttribute("visibility", "hidden");
    }

    const plot = h("div", {
      class: "plot", tabindex: 0, role: "img", "aria-label": `${title}: ${format.number(low)} to ${format.number(high)}; arrow keys read values`,
      onpointermove: (event) => {
        const box = picture.getBoundingClientRect();
        point(nearest(main.steps, first + ((last - first) * (event.clientX - box.left)) / box.width));
      },
      onpointerleave: rest,
      onblur: rest,
      onkeydown: (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
        if (!by) return;
        event.preventDefault();
        point(at + by);
        view.say(readout.textContent);
      },
    }, picture, h("span", { class: "high" }, format.number(high)), h("span", { class: "low" }, format.number(low)));
    rest();
    return h("figure", { class: "chart" }, h("figcaption", {}, view.text.inline(title), readout), plot);
  }

  view.chart = chart;
}
