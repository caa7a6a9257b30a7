// The picture of the cluster: this program as the hub, the nodes as cards, and links between them, drawn as SVG behind the cards.
//
// Cards are HTML lists, so a screen reader reads them as text. They show numbers, not one dot for each session, so thousands of
// sessions are as readable as three.

import { onWidth } from "./width.js";

const SVG = "http://www.w3.org/2000/svg";
/** With more nodes than this, the cards have one line each and stand on both sides of the hub. */
const ONE_SIDE_MAX = 10;
/** In a narrower picture the cards stand below the hub. */
const NARROW_PX = 560;

/** The mark of each state: a shape too, not only a colour. */
const MARKS = {
  up: "M6 1a5 5 0 1 1 0 10a5 5 0 1 1 0-10",
  draining: "M6 1a5 5 0 0 1 0 10zM6 1.7a4.3 4.3 0 0 0 0 8.6v-1a3.3 3.3 0 0 1 0-6.6z",
  unproved: "M6 1a5 5 0 1 1 0 10a5 5 0 1 1 0-10m0 1.5a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7",
  cooling: "M6 1a5 5 0 1 1 0 10a5 5 0 1 1 0-10m0 1.3a3.7 3.7 0 1 0 0 7.4a3.7 3.7 0 1 0 0-7.4M5.4 3.4h1.2v2.4l1.7 1.5-.8.9-2.1-1.9z",
  down: "M2.6 1.2L6 4.6 9.4 1.2l1.4 1.4L7.4 6l3.4 3.4-1.4 1.4L6 7.4l-3.4 3.4-1.4-1.4L4.6 6 1.2 2.6z",
  refused: "M1 4.8h10v2.4H1z",
};

const span = (kind, ...content) => {
  const made = document.createElement("span");
  made.className = kind;
  made.append(...content);
  return made;
};

function mark(state) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("class", "mark");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("fill-rule", "evenodd");
  path.setAttribute("d", MARKS[state] ?? MARKS.unproved);
  svg.append(path);
  return svg;
}

export class Picture {
  #states = new Map();
  #content = "";

  constructor(id) {
    this.frame = document.getElementById(id);
    this.links = document.createElementNS(SVG, "svg");
    this.links.setAttribute("aria-hidden", "true");
    this.links.setAttribute("class", "links");
    this.hub = document.createElement("div");
    this.hub.className = "hub";
    this.sides = [document.createElement("ul"), document.createElement("ul")];
    this.frame.append(this.links, this.sides[0], this.hub, this.sides[1]);
    onWidth(this.frame, () => this.#place());
  }

  /**
   * Shows the hub, `{ name, lines }`, and the nodes, `{ key, name, detail, state, stateText, value, unit, share }`. `share` is the part of
   * the traffic or of the sessions on the node, from 0 to 1. Returns the nodes whose state has changed since the last call.
   */
  show(hub, nodes) {
    const content = JSON.stringify([hub, nodes]);
    if (content === this.#content) return [];
    this.#content = content;
    this.hub.replaceChildren(span("name", hub.name), ...hub.lines.map((line) => span("detail", line)));
    this.nodes = nodes;
    const changed = [];
    for (const node of nodes) {
      const before = this.#states.get(node.key);
      if (before !== undefined && before !== node.state) changed.push(node);
      this.#states.set(node.key, node.state);
    }
    this.#place(new Set(changed.map((node) => node.key)));
    return changed;
  }

  #place(changed = new Set()) {
    if (!this.nodes || this.frame.clientWidth === 0) return;
    const isNarrow = this.frame.clientWidth < NARROW_PX;
    const isMany = this.nodes.length > ONE_SIDE_MAX;
    const half = isMany && !isNarrow ? Math.ceil(this.nodes.length / 2) : 0;
    this.frame.className = `picture${isNarrow ? " narrow" : ""}${isMany ? " many" : ""}${half ? " two-sided" : ""}`;
    const cards = this.nodes.map((node) => card(node, changed.has(node.key), isMany));
    this.sides[0].replaceChildren(...cards.slice(0, half));
    this.sides[1].replaceChildren(...cards.slice(half));
    this.sides[0].hidden = half === 0;
    this.#draw(cards, half, isNarrow);
  }

  #draw(cards, half, isNarrow) {
    const frame = this.frame.getBoundingClientRect();
    const hub = this.hub.getBoundingClientRect();
    this.links.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    const paths = cards.map((one, at) => {
      const box = one.getBoundingClientRect();
      const isLeft = at < half;
      const middle = box.top + box.height / 2 - frame.top;
      let d;
      if (isNarrow) {
        const x = box.left - frame.left - 14;
        d = `M${x} ${hub.bottom - frame.top}V${middle - 8}q0 8 8 8H${box.left - frame.left}`;
      } else {
        const [first, count] = isLeft ? [0, half] : [half, cards.length - half];
        const part = (at - first + 1) / (count + 1);
        const from = [(isLeft ? hub.left : hub.right) - frame.left, hub.top - frame.top + hub.height * part];
        const to = (isLeft ? box.right : box.left) - frame.left;
        const bend = (from[0] + to) / 2;
        d = `M${from[0]} ${from[1]}C${bend} ${from[1]} ${bend} ${middle} ${to} ${middle}`;
      }
      const path = document.createElementNS(SVG, "path");
      const node = this.nodes[at];
      path.setAttribute("class", `link ${node.state}`);
      path.setAttribute("d", d);
      path.setAttribute("stroke-width", isNarrow ? 2 : (1.5 + 8 * node.share).toFixed(1));
      return path;
    });
    this.links.replaceChildren(...paths);
  }
}

/** Makes the card of a node. With `isShort` it has one line, so the style sheet hides the details. */
function card(node, isChanged, isShort) {
  const made = document.createElement("li");
  made.className = `card ${node.state}${isChanged ? " changed" : ""}`;
  made.title = `${node.name}, ${node.detail}, ${node.stateText}`;
  made.append(
    mark(node.state),
    span("name", node.name),
    span("value", node.value),
    span("detail", node.detail),
    span("state", isShort ? node.state : node.stateText),
    span("unit", node.unit),
  );
  return made;
}
