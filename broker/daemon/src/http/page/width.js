// The width of an element, for drawings that depend on it.

/** Calls `changed` at each change of the width of an element, but not of its height, which the drawing itself may change. */
export function onWidth(element, changed) {
  let known = -1;
  const observer = new ResizeObserver(() => {
    if (element.clientWidth === known) return;
    known = element.clientWidth;
    changed();
  });
  observer.observe(element);
}
