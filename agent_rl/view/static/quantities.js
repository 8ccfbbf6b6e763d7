"use strict";
/*
 * What a token can be coloured by. A quantity gives each token a value, and a colour: `heat` 0 to 1 of one hue, or
 * `lean` -1 to 1 between two, or one of a few `kind`s.
 */
{
  const { format } = view;

  /** The value below which the share `part` of the magnitudes lies; outliers must not bleach all others. */
  function quantile(values, part) {
    const sorted = values.filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] || sorted.at(-1) || 1 : 1;
  }

  function heat(values) {
    const top = quantile(values, 0.98);
    return { top, colour: (value) => (Number.isFinite(value) ? { heat: Math.min(1, Math.abs(value) / top) } : {}) };
  }

  function lean(values) {
    const top = quantile(values, 0.98);
    return { top, colour: (value) => (Number.isFinite(value) && value !== 0 ? { lean: Math.max(-1, Math.min(1, value / top)) } : {}) };
  }

  const QUANTITIES = {
    mask: { title: "response mask", values: ({ mask }) => mask, kinds: true, names: ["inserted", "sampled"] },
    logprob: { title: "sampled log-prob", values: ({ logprobs }) => logprobs, scale: heat, ends: (top) => ["0 (certain)", `−${format.number(top)}`] },
    trainer: { title: "trainer log-prob", values: ({ trained }) => trained?.logprobs, scale: heat, ends: (top) => ["0 (certain)", `−${format.number(top)}`] },
    ratio: { title: "trainer − sampler (log ratio)", values: ({ logprobs, trained }) => trained?.logprobs?.map((value, i) => (value === null ? null : value - logprobs[i])), scale: lean, ends: (top) => [`−${format.number(top)}`, `+${format.number(top)}`] },
    advantage: { title: "advantage", values: ({ trained }) => trained?.advantages, scale: lean, ends: (top) => [`−${format.number(top)}`, `+${format.number(top)}`] },
    entropy: { title: "entropy", values: ({ trained }) => trained?.entropies, scale: heat, ends: (top) => ["0", format.number(top)] },
    version: { title: "weight version", values: ({ versions }) => versions, kinds: true },
  };

  /** A quantity over a segment: `{ title, values, colour(i), legend }`, or null where nobody recorded it. */
  function measure(name, segment) {
    const quantity = QUANTITIES[name];
    const values = quantity.values(segment);
    if (!values?.some((value) => value !== null)) return null;
    if (quantity.kinds) {
      const kinds = [...new Set(values.filter((value) => value !== null))].sort((a, b) => a - b);
      const legend = kinds.map((kind, i) => [quantity.names?.[kind] ?? format.number(kind), { kind: i % 6 }]);
      return { title: quantity.title, values, legend, colour: (i) => (values[i] === null ? {} : { kind: kinds.indexOf(values[i]) % 6 }) };
    }
    const { top, colour } = quantity.scale(values);
    return { title: quantity.title, values, ends: quantity.ends(top), scale: quantity.scale === lean ? "lean" : "heat", colour: (i) => colour(values[i]) };
  }

  view.quantities = { names: Object.keys(QUANTITIES), title: (name) => QUANTITIES[name].title, measure };
}
