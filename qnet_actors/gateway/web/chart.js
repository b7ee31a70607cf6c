// Bars over time: one path for all of them, read with the pointer or the arrow keys.

import { grouped, h, replace, svg } from "./dom.js";

const HEIGHT = 100;
const GAP = 0.2;

/** The smallest of 1, 2, 5 x 10^n that is no less than `value`. */
export function ceiling(value) {
  if (value <= 1) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * unit).find((step) => step >= value);
}

/** Transactions a second over the last `seconds` seconds; `set` takes a count for each, or null. */
export class RateChart {
  constructor(seconds) {
    this._seconds = seconds;
    this._counts = new Array(seconds).fill(0);
    this._at = null;
    this._bars = svg("path", { class: "bars" });
    this._mark = svg("rect", { class: "mark", y: 0, width: 1, height: HEIGHT, visibility: "hidden" });
    this._unknown = svg("rect", { class: "unknown", x: 0, y: 0, width: 0, height: HEIGHT });
    this._ticks = h("div", { class: "ticks", "aria-hidden": "true" });
    this._readout = h("p", { class: "readout" });
    this._none = h("p", { class: "nothing" }, "No transactions in the last two minutes");
    this._svg = svg(
      "svg",
      { viewBox: `0 0 ${seconds} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      [0, 0.5, 1].map((part) =>
        svg("line", { x1: 0, x2: seconds, y1: part * HEIGHT, y2: part * HEIGHT, class: "grid" }),
      ),
      this._unknown,
      this._mark,
      this._bars,
    );
    // A slider is what arrow keys over a row of values are to a screen reader.
    this._plot = h(
      "div",
      {
        class: "plot",
        tabindex: 0,
        role: "slider",
        "aria-label": "Transactions a second, second by second",
        "aria-valuemin": 1 - seconds,
        "aria-valuemax": 0,
        "aria-valuenow": 0,
      },
      this._svg,
      this._none,
    );
    this.element = h(
      "figure",
      { class: "chart" },
      this._readout,
      h("div", { class: "frame" }, this._ticks, this._plot),
      h(
        "figcaption",
        { class: "axis" },
        h("span", {}, `${seconds} s ago`),
        h("span", {}, `${seconds / 2} s`),
        h("span", {}, "now"),
      ),
    );
    this._plot.addEventListener("pointermove", (event) => this._point(event));
    this._plot.addEventListener("pointerleave", () => this._select(null));
    this._plot.addEventListener("blur", () => this._select(null));
    this._plot.addEventListener("keydown", (event) => this._key(event));
  }

  set(counts) {
    this._counts = counts;
    const top = ceiling(Math.max(...counts));
    const unknown = counts.lastIndexOf(null) + 1;
    this._unknown.setAttribute("width", String(unknown));
    const parts = counts.map((count, at) => {
      if (!count) return "";
      const y = HEIGHT * (1 - count / top);
      return `M${at + GAP / 2} ${HEIGHT}V${y.toFixed(2)}h${1 - GAP}V${HEIGHT}z`;
    });
    this._bars.setAttribute("d", parts.join(""));
    const where = unknown ? "what was read" : "the last two minutes";
    replace(this._none, `No transactions in ${where}`);
    this._none.hidden = counts.some(Boolean) || unknown === counts.length;
    replace(this._ticks, [top, top / 2, 0].map((tick) => h("span", {}, grouped(tick))));
    this._read();
  }

  _read() {
    const counts = this._counts;
    if (this._at !== null) {
      const ago = this._seconds - 1 - this._at;
      const count = counts[this._at];
      this._say(`${ago} s before: ${count === null ? "not read" : `${grouped(count)} tx`}`);
      return;
    }
    const known = counts.filter((count) => count !== null);
    if (!known.length) {
      this._say("Reading blocks");
      return;
    }
    const average = Math.round(known.reduce((sum, count) => sum + count, 0) / known.length);
    const over = known.length < counts.length ? `over the ${known.length} s that were read, ` : "";
    this._say(`${over}average ${grouped(average)} tx/s, peak ${grouped(Math.max(...known))} tx/s`);
  }

  _say(text) {
    replace(this._readout, text);
    this._plot.setAttribute("aria-valuetext", text);
  }

  _select(at) {
    this._at = at;
    this._mark.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) {
      this._mark.setAttribute("x", String(at));
      this._plot.setAttribute("aria-valuenow", String(at - this._seconds + 1));
    }
    this._read();
  }

  _point(event) {
    const box = this._plot.getBoundingClientRect();
    const at = Math.floor(((event.clientX - box.left) / box.width) * this._seconds);
    this._select(Math.min(this._seconds - 1, Math.max(0, at)));
  }

  _key(event) {
    const last = this._seconds - 1;
    const now = this._at ?? last;
    const next = {
      ArrowLeft: now - 1,
      ArrowDown: now - 1,
      ArrowRight: now + 1,
      ArrowUp: now + 1,
      PageDown: now - 10,
      PageUp: now + 10,
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Escape") this._select(null);
    if (next === undefined) return;
    event.preventDefault();
    this._select(Math.min(last, Math.max(0, next)));
  }
}
