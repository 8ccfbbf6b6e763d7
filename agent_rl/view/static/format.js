"use strict";
/* Numbers as people read them. */
{
  const NONE = "–";

  /** Up to four significant digits; what is no number (null, or "NaN" from a journal) is shown as it is. */
  function number(value) {
    if (value === null || value === undefined) return NONE;
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) return value.toLocaleString("en-US");
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
    return Number(value.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  }

  function seconds(value) {
    if (typeof value !== "number") return NONE;
    if (value < 0.0995) return `${(1000 * value).toFixed(value < 0.00995 ? 1 : 0)} ms`;
    if (value < 99.5) return `${value.toPrecision(value < 9.95 ? 2 : 3)} s`;
    const minutes = Math.round(value / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function percent(value) {
    return typeof value === "number" ? `${(100 * value).toFixed(1)}%` : NONE;
  }

  function bytes(value) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const power = value < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
    return `${Number((value / 1000 ** power).toPrecision(3))} ${units[power]}`;
  }

  /** A moment in Unix seconds, in the reader's own time zone. */
  function moment(value) {
    return value ? new Date(1000 * value).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : NONE;
  }

  function ago(value) {
    const passed = Date.now() / 1000 - value;
    return passed < 5 ? "just now" : `${seconds(passed)} ago`;
  }

  /** A value of a config, a metric or an argument: JSON, but a bare word where that cannot be misread. */
  function value(content) {
    if (content === null) return "none";
    return typeof content === "string" ? content : JSON.stringify(content);
  }

  function words(name) {
    return String(name).replaceAll("_", " ");
  }

  view.format = { NONE, number, seconds, percent, bytes, moment, ago, value, words };
}
