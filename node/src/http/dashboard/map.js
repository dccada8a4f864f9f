// The map: regions, nodes and links. Few nodes are drawn each with its links; many as cells of their region,
// with the links between regions, for nobody can read hundreds of lines. What it shows is in the tables, too.

import { MARKS, bytes, count, counted, isGone, keyed, milliseconds, say, set, svg } from "./elements.js";

const RADIUS = 21;
const SILENT_MS = 3000;

/** More nodes than this are cells, sooner on a phone; more than that, cells without names. */
const DRAWN_MAX = 8;
const DRAWN_NARROW_MAX = 4;
const NAMED_MAX = 48;

/** Sides of a cell without name, and the least width and the height of one with it. */
const CELL = 26;
const NAMED = { width: 92, height: 30 };

/** Where a region's titles end. */
const HEAD = 46;

/** How far below regions that way runs which joins others past them. */
const FAR = 44;

/** A map of nodes that is narrower than this has no room for rates. */
const WIDE = 560;

/** Draws what `view` says into `place`; `choose` is called with a node that was chosen, and its element. */
export function drawMap(place, legend, view, chosen, choose) {
  const width = Math.max(280, place.clientWidth);
  const isFew = view.nodes.length <= (width < WIDE ? DRAWN_NARROW_MAX : DRAWN_MAX);
  const drawing = view.links && isFew ? ofNodes(view, width) : ofRegions(view, width);
  if (!place.firstChild) {
    const layers = ["regions", "links", "labels", "nodes"].map((name) => svg("g", { class: name }));
    set(layers[3], { role: "group", "aria-label": "Nodes: arrow keys go from one to the next, Enter shows it" });
    layers[3].addEventListener("keydown", walk);
    place.append(svg("svg", { role: "group", "aria-label": "Map of nodes and links; the tables below say the same" }, ...layers));
  }
  const picture = place.firstChild;
  set(picture, { viewBox: `0 0 ${width} ${drawing.height}` });
  const [regions, links, labels, nodes] = picture.children;
  drawRegions(regions, drawing.regions);
  drawLinks(links, drawing.links, chosen);
  drawLabels(labels, drawing.labels);
  keyed(nodes, drawing.nodes, (node) => `${drawing.kind}${node.id}`,
    (node) => made(drawing.kind, node.id, choose),
    (element, node) => update(element, node, drawing.kind, node.id === chosen));
  if (!nodes.querySelector('[tabindex="0"]') && nodes.firstChild) set(nodes.firstChild, { tabindex: 0 });
  say(legend, drawing.legend);
}

/** The nodes are one stop of the tab key; arrow keys go from one to the next. */
function walk(event) {
  const all = [...event.currentTarget.children];
  const from = all.indexOf(event.target);
  const to = { ArrowLeft: from - 1, ArrowUp: from - 1, ArrowRight: from + 1, ArrowDown: from + 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || from < 0) return;
  event.preventDefault();
  const next = all[Math.min(all.length - 1, Math.max(0, to))];
  for (const node of all) set(node, { tabindex: node === next ? 0 : -1 });
  next.focus();
}

function ofNodes(view, width) {
  const groups = groupsOf(view);
  const places = new Map();
  const boxes = boxesFor(groups, width);
  const regions = groups.map(([name, nodes], n) => ({ ...titlesOf(name, nodes), ...boxes[n] }));
  groups.forEach(([, nodes], n) => {
    ring(nodes, boxes[n], groups.length > 1 ? n + 1 : 0).forEach((place, k) => places.set(nodes[k].id, place));
  });
  const links = linksOf(view).map((link) => ({ ...link, from: places.get(link.a), to: places.get(link.b) }))
    .filter((link) => link.from && link.to);
  const nodes = view.nodes.map((node) => ({ ...node, ...places.get(node.id) }));
  const labels = placed([...links].sort((one, other) => URGENT.indexOf(other.state) - URGENT.indexOf(one.state)), nodes, width);
  return {
    kind: "node", regions, links, labels, nodes,
    height: Math.max(...boxes.map((box) => box.y + box.height)),
    legend: "● alive  ▲ suspect  ◐ leaving  ✕ dead.  Blue arc: the node's share of its region's ring. Line: a link, with round trip "
      + "and what it carries; broken: silent or missing.",
  };
}

/** What has its label first. */
const URGENT = ["up", "silent", "missing"];

/** Labels of links, each where it covers no node and no other label; none where there is no such place. */
function placed(links, nodes, width) {
  const taken = nodes.map(({ x, y }) => ({ left: x - 44, right: x + 44, top: y - RADIUS - 8, bottom: y + RADIUS + 36 }));
  return links.flatMap((link) => {
    const { from, to } = link;
    const carries = width >= WIDE && link.rate !== null ? `, ${bytes(link.rate)}/s` : "";
    const text = { missing: "no link", silent: "silent" }[link.state] ?? milliseconds(link.rtt) + carries;
    for (const part of [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8]) {
      const [x, y] = [from.x + (to.x - from.x) * part, from.y + (to.y - from.y) * part];
      const box = { left: x - text.length * 3.4, right: x + text.length * 3.4, top: y - 9, bottom: y + 9 };
      const isFree = taken.every((other) => box.right < other.left || other.right < box.left || box.bottom < other.top || other.bottom < box.top);
      if (!isFree) continue;
      taken.push(box);
      return [{ key: link.key, text, x, y }];
    }
    return [];
  });
}

const groupsOf = (view) => [...Map.groupBy(view.nodes, (node) => node.region)];

/** What is written in a region's corner. */
function titlesOf(name, nodes) {
  const there = nodes.filter((node) => !isGone(node));
  const agents = there.reduce((sum, node) => sum + node.agents, 0);
  const many = there.length < nodes.length ? `${there.length} of ${counted(nodes.length, "node")}` : counted(nodes.length, "node");
  return { name, sum: `${many}, ${counted(agents, "agent")}` };
}

/** Regions side by side: few enough to be read, and no row with one alone if that can be. */
function columnsFor(groups, width) {
  if (width < WIDE) return 1;
  return groups.length === 4 ? 2 : Math.min(groups.length, 3);
}

/** A box for each region: as high as its nodes need. */
function boxesFor(groups, width) {
  const columns = columnsFor(groups, width);
  const rows = Math.ceil(groups.length / columns);
  const most = Math.max(...groups.map(([, nodes]) => nodes.length));
  const height = most === 1 ? 170 : groups.length === 1 ? Math.min(440, Math.max(300, width * 0.5)) : 290;
  const gap = groups.length > 1 ? Math.min(70, width / 8) : 0;
  const boxWidth = (width - gap * (columns - 1)) / columns;
  return groups.map((_, n) => ({
    x: (n % columns) * (boxWidth + gap), y: Math.floor(n / columns) * (height + (rows > 1 ? 50 : 0)), width: boxWidth, height,
  }));
}

/** Places for nodes on an ellipse within their region's box; each region's is turned, so that links between
 * regions do not lie on one another. */
function ring(nodes, box, turn) {
  const middle = { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  const [rx, ry] = [Math.min(box.width / 2 - 55, box.height * 0.9), (box.height - HEAD) / 2 - 42];
  const begin = nodes.length === 2 && !turn ? Math.PI : Math.PI / 2 + 0.3 * turn;
  const places = nodes.map((_, n) => {
    const angle = (n / nodes.length) * 2 * Math.PI - begin;
    return nodes.length === 1 ? { x: 0, y: 0 } : { x: rx * Math.cos(angle), y: ry * Math.sin(angle) };
  });
  // What is drawn has its middle in the box's, below the region's title and above the names.
  const ys = places.map((place) => place.y);
  const shift = -(Math.min(...ys) + Math.max(...ys)) / 2 + 8;
  return places.map(({ x, y }) => ({ x: middle.x + x, y: middle.y + y + shift }));
}

/**
 * Each pair of nodes once, with what both ends say of their link; those that should have one and do not, too.
 * None where links are told by region.
 */
export function linksOf(view) {
  if (!view.links) return [];
  if (known.view !== view) Object.assign(known, { view, links: pairsOf(view) });
  return known.links;
}

/** The last view whose pairs were made: several ask for them. */
const known = { view: null, links: [] };

function pairsOf(view) {
  const pairs = new Map();
  const key = (a, b) => (a < b ? `${a} ${b}` : `${b} ${a}`);
  for (const link of view.links) {
    const [a, b] = [link.from, link.to].sort();
    const pair = pairs.get(key(a, b)) ?? { key: key(a, b), a, b, rtt: Infinity, rate: null, queue: 0, silent: 0, state: "up" };
    pair.rtt = Math.min(pair.rtt, link.rtt_ms);
    pair.queue += link.queue_bytes;
    if (link.bytes_per_second !== null) pair.rate = (pair.rate ?? 0) + link.bytes_per_second;
    pair.silent = Math.max(pair.silent, link.silent_ms);
    if (link.silent_ms >= SILENT_MS) pair.state = "silent";
    pairs.set(pair.key, pair);
  }
  const dead = new Set(view.nodes.filter((node) => node.state === "dead").map((node) => node.id));
  for (const pair of pairs.values()) if (dead.has(pair.a) || dead.has(pair.b)) pair.state = "silent";
  const able = view.nodes.filter((node) => node.state === "alive" && !view.untold.includes(node.id));
  for (const [n, one] of able.entries()) {
    for (const other of able.slice(n + 1)) {
      const [a, b] = [one.id, other.id].sort();
      if (!pairs.has(key(a, b))) pairs.set(key(a, b), { key: key(a, b), a, b, rtt: null, rate: null, queue: 0, silent: null, state: "missing" });
    }
  }
  return [...pairs.values()];
}

/**
 * How pairs of regions are joined: across the gap between neighbours, below those that lie between, and across
 * the corner. With more than four regions only neighbours are: the table has the others.
 */
function joins(view, boxes) {
  const boxOf = new Map(boxes.map((box) => [box.name, box]));
  return view.regions.filter((pair) => pair.a !== pair.b).flatMap((pair) => {
    const [a, b] = [boxOf.get(pair.a), boxOf.get(pair.b)].sort((one, other) => one.y - other.y || one.x - other.x);
    const way = wayBetween(a, b);
    if (!way || (boxes.length > 4 && way.kind !== "near")) return [];
    const sign = pair.silent ? "▲ " : "";
    const names = way.kind === "far" ? `${a.name} – ${b.name}: ` : "";
    return [{ key: `${pair.a} ${pair.b}`, ...way, rate: pair.bytes_per_second, state: sign ? "silent" : "up", text: sign + names + milliseconds(pair.rtt_ms) }];
  });
}

function wayBetween(a, b) {
  const middle = (box) => ({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
  const way = (kind, from, to, bend, part) => ({
    kind, from, to, bend, x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part + bend / 2,
  });
  const [right, bottom] = [a.x + a.width, a.y + a.height];
  if (a.y === b.y && b.x - right < a.width) return way("near", { x: right, y: middle(a).y }, { x: b.x, y: middle(b).y }, 0, 0.5);
  if (a.y === b.y) return way("far", { x: middle(a).x, y: bottom }, { x: middle(b).x, y: bottom }, FAR, 0.5);
  if (b.y - bottom >= a.height) return null;
  if (a.x === b.x) return way("near", { x: middle(a).x, y: bottom }, { x: middle(b).x, y: b.y }, 0, 0.5);
  if (Math.abs(a.x - b.x) >= 2 * a.width) return null;
  const isDown = b.x > a.x;
  return way("corner", { x: isDown ? right : a.x, y: bottom }, { x: isDown ? b.x : b.x + b.width, y: b.y }, 0, isDown ? 0.2 : 0.8);
}

function ofRegions(view, width) {
  const groups = groupsOf(view);
  const columns = columnsFor(groups, width);
  const gap = columns > 1 ? 64 : 40;
  const boxWidth = (width - gap * (columns - 1)) / columns;
  const cell = cellFor(view.nodes.length, boxWidth - 16);
  const tall = Math.max(...groups.map(([, nodes]) => Math.ceil(nodes.length / cell.perRow))) * cell.height + HEAD + 8;
  const busiest = Math.max(1, ...view.nodes.map((node) => node.messages_per_minute));
  const [regions, nodes] = [[], []];
  groups.forEach(([name, members], n) => {
    const box = { x: (n % columns) * (boxWidth + gap), y: Math.floor(n / columns) * (tall + gap), width: boxWidth, height: tall };
    regions.push({ ...titlesOf(name, members), ...box });
    members.forEach((node, k) => nodes.push({
      ...node, cell, heat: node.messages_per_minute / busiest,
      x: box.x + 8 + ((k % cell.perRow) + 0.5) * cell.width, y: box.y + HEAD + (Math.floor(k / cell.perRow) + 0.5) * cell.height,
    }));
  });
  const joined = joins(view, regions);
  const placeOf = new Map(nodes.map((node) => [node.id, node]));
  const broken = linksOf(view).filter((link) => link.state !== "up" && placeOf.has(link.a) && placeOf.has(link.b))
    .map((link) => ({ ...link, from: placeOf.get(link.a), to: placeOf.get(link.b) }));
  const legend = "A cell is a node, the bluer the more messages it takes; ▲ suspect  ◐ leaving  ✕ dead. Lines are the links between "
    + "regions, with the round trip that half of them exceed; broken: some are silent. All are in the table of links.";
  const height = Math.ceil(groups.length / columns) * (tall + gap) - gap + roomBelow(joined);
  return { kind: "cell", regions, links: [...joined, ...broken], labels: joined, nodes, legend, height };
}

/** How large cells are, so that they fill rows of this width. */
function cellFor(nodes, width) {
  const isNamed = nodes <= NAMED_MAX;
  const perRow = Math.max(1, Math.floor(width / (isNamed ? NAMED.width : CELL)));
  return { isNamed, perRow, width: isNamed ? Math.min(160, width / perRow) : CELL, height: isNamed ? NAMED.height : CELL };
}

/** What joins regions below those that lie between needs room. */
const roomBelow = (joined) => (joined.some((join) => join.kind === "far") ? FAR : 0);

function drawRegions(layer, regions) {
  const make = () => svg("g", {}, svg("rect", { class: "region", rx: 8 }), svg("text", { class: "region-name" }), svg("text", { class: "region-name faint" }));
  keyed(layer, regions, (region) => region.name, make, (group, region) => {
    const [box, name, sum] = group.children;
    const { x, y, width, height } = region;
    set(box, { x: x + 1, y: y + 1, width: width - 2, height: height - 2 });
    set(name, { x: x + 12, y: y + 20 });
    set(sum, { x: x + 12, y: y + 35 });
    say(name, region.name);
    say(sum, region.sum);
  });
}

function drawLinks(layer, links, chosen) {
  keyed(layer, links, (link) => link.key, () => svg("path"), (line, { from, to, state, bend, ...link }) => {
    const isOther = chosen && link.a && link.a !== chosen && link.b !== chosen;
    const curve = bend ? `Q${(from.x + to.x) / 2} ${from.y + bend}` : "L";
    set(line, { d: `M${from.x} ${from.y}${curve} ${to.x} ${to.y}`, "data-state": state, class: isOther ? "link dim" : "link" });
    set(line, { "stroke-width": (1.2 + Math.min(5, Math.log10(1 + (link.rate ?? 0) / 1000))).toFixed(1) });
  });
}

function drawLabels(layer, labels) {
  keyed(layer, labels, (label) => label.key, () => svg("text", { class: "faint label" }), (text, label) => {
    set(text, { x: label.x, y: label.y + 4 });
    say(text, label.text);
  });
}

function made(kind, id, choose) {
  const group = svg("g", { class: kind === "cell" ? "node cell" : "node", tabindex: -1, role: "button" });
  const mark = svg("text", { class: "mark", y: 5, "aria-hidden": "true" });
  if (kind === "cell") {
    group.append(...["body", "heat", "halo"].map((name) => svg("rect", { class: name, rx: 3 })));
    group.append(mark, svg("text", { class: "cell-name", y: 4 }), svg("title"));
  } else {
    group.append(svg("circle", { class: "halo", r: RADIUS + 5 }), svg("circle", { class: "body", r: RADIUS }));
    group.append(svg("circle", { class: "share", r: RADIUS, transform: "rotate(-90)", pathLength: 100 }), mark);
    group.append(svg("text", { class: "name label", y: RADIUS + 17 }), " ", svg("text", { class: "faint label", y: RADIUS + 31 }));
  }
  group.addEventListener("click", () => choose(id, group));
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(id, group);
  });
  return group;
}

function update(group, node, kind, isChosen) {
  set(group, { transform: `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})`, "data-state": node.state, "aria-pressed": String(isChosen) });
  (kind === "cell" ? updateCell : updateNode)(group, node, counted(node.agents, "agent"));
}

function updateNode(group, node, agents) {
  const [, , share, mark, name, below] = group.children;
  const text = node.state === "alive" ? agents : node.state;
  // Begins with what is written, so that whoever speaks to the browser can say what they see.
  set(group, { "aria-label": `${node.name} ${text}${node.state === "alive" ? ", alive" : `, ${agents}`}` });
  set(share, { "stroke-dasharray": `${(node.ring_share * 100).toFixed(1)} 100` });
  say(mark, MARKS[node.state] ?? "?");
  say(name, node.name);
  say(below, text);
}

function updateCell(group, { cell, ...node }, agents) {
  const [body, heat, halo, mark, name, title] = group.children;
  const isAlive = node.state === "alive";
  for (const [rect, more] of [[body, -4], [heat, -4], [halo, -1]]) {
    const [width, height] = [cell.width + more, cell.height + more];
    set(rect, { width, height, x: -width / 2, y: -height / 2 });
  }
  // A name is read on any blue, if that is pale.
  set(heat, { opacity: isAlive ? (0.06 + (cell.isNamed ? 0.24 : 0.8) * node.heat).toFixed(2) : 0 });
  set(mark, { x: cell.isNamed ? 12 - cell.width / 2 : 0 });
  say(mark, isAlive && !cell.isNamed ? "" : MARKS[node.state] ?? "?");
  set(name, { x: 22 - cell.width / 2 });
  say(name, cell.isNamed ? shortened(node.name, Math.floor((cell.width - 28) / 6.4)) : "");
  const words = `${node.name}, ${node.state}, ${agents}`;
  set(group, { "aria-label": words });
  say(title, words);
}

/** At most so many letters, without the middle: nodes' names begin or end alike. */
function shortened(name, letters) {
  if (name.length <= letters) return name;
  const part = (letters - 1) / 2;
  return `${name.slice(0, Math.ceil(part))}…${name.slice(-Math.floor(part))}`;
}
