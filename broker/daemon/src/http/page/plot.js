// A plot of rates over the last ten minutes, as SVG.

import { duration } from "./format.js";
import { onWidth } from "./width.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 132;
const TOP = 14;
const BOTTOM = 20;

const make = (name, attributes, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

/** Returns the smallest of 1, 2, 5, 10, 20, … that is not below `value`. */
const ceiling = (value) => {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value);
};

/** A figure with a legend. `lines` are `{ name, label }`, with the name of the counter. `format` formats a rate. */
export class Plot {
  constructor(id, history, lines, format) {
    this.history = history;
    this.lines = lines;
    this.format = format;
    const figure = document.getElementById(id);
    this.svg = make("svg", { "aria-hidden": "true", height: HEIGHT });
    const legend = document.createElement("ul");
    legend.className = "legend";
    this.values = lines.map(({ label }, at) => {
      const entry = document.createElement("li");
      const key = document.createElement("span");
      key.className = `key line-${at}`;
      const value = document.createElement("b");
      const most = document.createElement("small");
      entry.append(key, `${label} `, value, " ", most);
      legend.append(entry);
      return { value, most };
    });
    figure.append(legend, this.svg);
    onWidth(figure, () => this.draw());
  }

  /** Draws the plot. `marks` are times at which something happened. */
  draw(marks = this.marks ?? []) {
    this.marks = marks;
    const { samples } = this.history;
    const span = this.history.span();
    const width = this.svg.parentElement.clientWidth;
    const end = samples.at(-1)?.at ?? 0;
    const highest = this.lines.map(({ name }) => this.history.highest(name));
    const most = ceiling(Math.max(...highest, 1));
    const x = (at) => (width - 1) * (1 - (end - at) / span);
    const y = (rate) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - rate / most);
    const point = (at, rate) => `${x(at).toFixed(1)} ${y(rate).toFixed(1)}`;

    const parts = [0, most / 2, most].map((rate) =>
      make("path", { class: "grid", d: `M0 ${y(rate).toFixed(1)}H${width}` }),
    );
    for (const at of marks.filter((mark) => mark > end - span && mark <= end + 1000)) {
      parts.push(make("path", { class: "event", d: `M${x(at).toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}` }));
    }
    this.lines.forEach(({ name }, at) => {
      for (const piece of pieces(samples, name)) {
        const line = piece.map((sample) => point(sample.at, sample.rates[name])).join("L");
        const [first, last] = [piece[0].at, piece.at(-1).at];
        if (at === 0) parts.push(make("path", { class: "area", d: `M${point(first, 0)}L${line}L${point(last, 0)}Z` }));
        parts.push(make("path", { class: `line line-${at}`, d: `M${line}` }));
      }
    });
    const label = (text, at, top, anchor) => make("text", { x: at, y: top, "text-anchor": anchor }, text);
    parts.push(label(this.format(most), 0, TOP - 4, "start"));
    parts.push(label(`${duration(span / 1000)} ago`, 0, HEIGHT - 5, "start"));
    parts.push(label(`${duration(span / 2000)} ago`, width / 2, HEIGHT - 5, "middle"), label("now", width, HEIGHT - 5, "end"));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
    this.values.forEach(({ value, most: top }, at) => {
      value.textContent = this.format(this.history.now(this.lines[at].name));
      top.textContent = `highest ${this.format(highest[at])}`;
    });
  }
}

/** Splits samples at the gaps. */
function pieces(samples, name) {
  const found = [];
  let piece = [];
  for (const sample of samples) {
    if (sample.rates[name] === null) {
      found.push(piece);
      piece = [];
    } else {
      piece.push(sample);
    }
  }
  return [...found, piece].filter((one) => one.length > 0);
}
