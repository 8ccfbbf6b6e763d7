"use strict";
/* Bars of a distribution; a bar is a button. */
{
  const { h, format } = view;

  /** `bins`: [{ low, high, count }]. `onpick(bin)` is called with the bin that was chosen. */
  view.histogram = (bins, label, onpick) => {
    const most = bins.reduce((high, { count }) => Math.max(high, count), 1);
    const bars = bins.map((bin) => {
      const range = bin.low === bin.high || bins.length === 1 ? format.number(bin.low) : `${format.number(bin.low)} to ${format.number(bin.high)}`;
      const text = `${label} ${range}: ${format.number(bin.count)}`;
      const height = bin.count ? Math.max(4, (100 * Math.log1p(bin.count)) / Math.log1p(most)) : 0;
      return h("button", { type: "button", class: "bar", title: text, "aria-label": text, disabled: !bin.count, onclick: () => onpick(bin) },
        h("span", { style: { height: `${height}%` } }));
    });
    if (!bins.length) return null;
    const ends = h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, format.number(bins[0].low)), h("span", {}, label), h("span", {}, format.number(bins.at(-1).high)));
    return h("div", { class: "distribution" }, h("div", { class: "histogram", role: "group", "aria-label": `Histogram of ${label} (logarithmic)` }, bars), ends);
  };
}
