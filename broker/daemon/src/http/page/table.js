// Tables that change in place, so that a selection, the scroll position and the focus stay.

/** Characters that control, are invisible or change the direction of writing: with them a name could look like another one. */
const CONTROLS = /[\p{Cc}\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;

/** Returns the text with a question mark for each of them, except for line breaks. */
const printable = (text) => String(text).replaceAll(CONTROLS, (letter) => (letter === "\n" ? letter : "?"));

/**
 * Shows these rows in the body of a table. A row is a list of cells. A cell is a text, or `{ text, kind, title }` with a class and a
 * tooltip. The first cell of a row is its heading. Texts are set as text, so nothing in them becomes markup.
 */
export function fill(body, rows, empty) {
  const columns = body.closest("table").tHead.rows[0].cells.length;
  const shown = rows.length > 0 ? rows : [[{ text: empty, kind: "empty" }]];
  while (body.rows.length > shown.length) body.deleteRow(-1);
  shown.forEach((cells, at) => {
    let row = body.rows[at];
    if (row && row.cells.length !== cells.length) row.replaceChildren();
    row ??= body.insertRow();
    cells.forEach((cell, column) => {
      const { text: given, kind = "", title: tip = "" } = typeof cell === "object" ? cell : { text: cell };
      const [text, title] = [printable(given), printable(tip)];
      let target = row.cells[column];
      if (!target) {
        const isHeading = column === 0 && rows.length > 0;
        target = document.createElement(isHeading ? "th" : "td");
        if (isHeading) target.scope = "row";
        if (rows.length === 0) target.colSpan = columns;
        row.append(target);
      }
      if (target.textContent !== text) target.textContent = text;
      if (target.className !== kind) target.className = kind;
      if (target.title !== title) target.title = title;
    });
  });
}

/** The buttons under a table that does not fit: which rows it shows, and the way to others. */
export class Pager {
  constructor(id, rows, changed) {
    this.rows = rows;
    this.offset = 0;
    this.total = 0;
    this.element = document.getElementById(id);
    const [back, next] = this.element.querySelectorAll("button");
    const go = (by) => () => {
      this.offset = Math.max(0, Math.min(this.offset + by, this.total - 1));
      changed();
    };
    back.addEventListener("click", go(-rows));
    next.addEventListener("click", go(rows));
  }

  /** Shows the place of the present rows among `total`. Returns whether the place exists; if not, the first rows are wanted. */
  show(total, noun) {
    this.total = total;
    if (this.offset >= total && this.offset > 0) {
      this.offset = 0;
      return false;
    }
    const last = Math.min(this.offset + this.rows, total);
    const place = `${(this.offset + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${total.toLocaleString("en")} ${noun}`;
    const output = this.element.querySelector("output");
    const text = total === 0 ? `No ${noun}` : place;
    if (output.textContent !== text) output.textContent = text;
    const [back, next] = this.element.querySelectorAll("button");
    back.disabled = this.offset === 0;
    next.disabled = last >= total;
    return true;
  }
}

/** Shows numbers as a list of terms: `{ name, value, more, bad }`. */
export function figures(id, list) {
  const shown = list.map(({ name, value, more, bad }) => {
    const entry = document.createElement("div");
    if (bad) entry.className = "bad";
    for (const [tag, text] of [
      ["dt", name],
      ["dd", value],
      ["dd", more],
    ]) {
      const part = document.createElement(tag);
      part.textContent = text;
      entry.append(part);
    }
    return entry;
  });
  document.getElementById(id).replaceChildren(...shown);
}
