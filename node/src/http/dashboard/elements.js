// Elements, made and kept. Whatever comes from the network becomes text or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element with these attributes; strings among the children become text. */
export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same of SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  set(element, attributes);
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** Sets attributes that have changed; null and false take one away. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

/** Sets an element's text if it has changed: so nothing is read out twice, and no selection is lost. */
export function say(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

const kept = new WeakMap();

/**
 * Makes the parent's children those of `items`, in their order: each is made once, found again by its key,
 * and brought up to date. What has the focus keeps it.
 */
export function keyed(parent, items, keyOf, make, update = () => {}) {
  const before = kept.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    after.set(key, before.get(key) ?? make(item));
    before.delete(key);
  }
  for (const element of before.values()) element.remove();
  let place = parent.firstChild;
  for (const item of items) {
    const element = after.get(keyOf(item));
    update(element, item);
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
  }
  kept.set(parent, after);
}

/**
 * A table with these columns, `[title, class]`, and rows `{key, cells}`; a cell is text, or a function that
 * fills its place.
 */
export function table(element, caption, columns, rows) {
  if (!element.tHead) {
    const titles = columns.map(([title, kind]) => html("th", { scope: "col", class: kind }, title));
    element.append(html("caption", { class: "unseen" }, caption), html("thead", {}, html("tr", {}, ...titles)), html("tbody"));
  }
  const cell = ([, kind], n) => (n ? html("td", { class: kind }) : html("th", { scope: "row", class: kind }));
  keyed(element.tBodies[0], rows, (row) => row.key, () => html("tr", {}, ...columns.map(cell)), (tr, row) => {
    row.cells.forEach((content, n) => fill(tr.children[n], content));
  });
}

function fill(place, content) {
  if (content instanceof Function) content(place);
  else say(place, content);
}

/** Pairs of a term and what it is. */
export function facts(list, pairs) {
  const parts = pairs.flatMap(([term, value]) => [["dt", term, term], ["dd", term, value]]);
  keyed(list, parts, ([name, term]) => name + term, ([name]) => html(name), (part, [, , text]) => say(part, text));
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** A count: in full up to five digits, then shortened. */
export const count = (number) => (number < 100_000 ? plain : short).format(number);

/** So many of something. */
export const counted = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

/** A rate or another number that may be small. */
export const rate = (number) => (number < 10 ? String(Math.round(number * 10) / 10) : count(number));

/** Milliseconds. */
export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : count(ms)} ms`;

/** Bytes. */
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (number >= 1024 && unit < 3) [number, unit] = [number / 1024, unit + 1];
  return `${rate(number)} ${units[unit]}`;
}

/** So many seconds, in the largest unit of which there are two. */
export function duration(seconds) {
  for (const [length, unit] of [[86_400, "days"], [3_600, "hours"], [60, "minutes"]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

/** A time of day, in the reader's zone. */
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

/** The same, with the day unless it is today's. */
export function moment(ms) {
  const day = new Date(ms).toDateString();
  return day === new Date().toDateString() ? clock(ms) : `${day.slice(4, 10)}, ${clock(ms)}`;
}

/** How a node's state is drawn. */
export const MARKS = { alive: "●", joining: "◌", suspect: "▲", leaving: "◐", left: "○", dead: "✕" };

/** Whether a node is not there any more. */
export const isGone = (node) => node.state === "dead" || node.state === "left";

/** Whether a node died, and no other that is there has taken its name or its address. */
export const isMissed = (node, nodes) => node.state === "dead" && !nodes.some((other) => other.id !== node.id && !isGone(other)
  && (other.name === node.name || (other.address && other.address === node.address)));

/** The name of the node with this id. */
export const nameOf = (view, id) => view.nodes.find((node) => node.id === id)?.name ?? id;
