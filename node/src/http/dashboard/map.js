// The map: regions, nodes and links. Few nodes are drawn each with its links; many as cells of their region,
// with the links between regions. What it shows is in the tables below it, too.

import { MARKS, count, keyed, milliseconds, say, set, svg } from "./elements.js";

const RADIUS = 21;
const CELL = 22;
const SILENT_MS = 3000;
const LABELLED_LINKS_MAX = 10;

/** Draws what `view` says into `place`; `choose` is called with the id of a node that was chosen. */
export function drawMap(place, legend, view, chosen, choose) {
  const width = Math.max(280, place.clientWidth);
  const drawing = view.links ? ofNodes(view, width) : ofRegions(view, width);
  if (!place.firstChild) {
    const layers = ["regions", "links", "labels", "nodes"].map((name) => svg("g", { class: name }));
    place.append(svg("svg", { role: "group", "aria-label": "Map of nodes; the tables below say the same" }, ...layers));
  }
  const picture = place.firstChild;
  set(picture, { viewBox: `0 0 ${width} ${drawing.height}` });
  const [regions, links, labels, nodes] = picture.children;
  drawRegions(regions, drawing.regions);
  drawLinks(links, drawing.links, chosen);
  drawLabels(labels, drawing.labels);
  const press = (id) => ({ "aria-pressed": String(id === chosen) });
  keyed(nodes, drawing.nodes, (node) => `${drawing.kind}${node.id}`,
    (node) => made(drawing.kind, node.id, choose),
    (element, node) => update(element, node, drawing.kind, press(node.id)));
  say(legend, drawing.legend);
}

function ofNodes(view, width) {
  const groups = [...Map.groupBy(view.nodes, (node) => node.region)];
  const places = new Map();
  const regions = [];
  const height = groups.length === 1 ? Math.min(420, Math.max(300, width * 0.45)) : layoutHeight(groups, width);
  const boxes = boxesFor(groups, width, height);
  groups.forEach(([name, nodes], n) => {
    const box = boxes[n];
    regions.push({ name, title: name, ...box });
    ring(nodes, box, groups.length > 1 ? n + 1 : 0).forEach((place, k) => places.set(nodes[k].id, place));
  });
  const links = linksOf(view).map((link) => ({ ...link, from: places.get(link.a), to: places.get(link.b) }))
    .filter((link) => link.from && link.to);
  const labels = links.length <= LABELLED_LINKS_MAX ? links.map(labelled) : between(view, regions);
  const nodes = view.nodes.map((node) => ({ ...node, ...places.get(node.id) }));
  const legend = "● alive  ▲ suspect  ◐ leaving  ✕ dead.  The blue arc is a node's share of its region's ring; "
    + "a line is a link, thicker the more it carries; broken: silent or missing.";
  return { kind: "node", regions, links, labels, nodes, height, legend };
}

/** Regions side by side: few enough to be read, and no row with one alone if that can be. */
function columnsFor(groups, width) {
  if (width < 560) return 1;
  return groups.length === 4 ? 2 : Math.min(groups.length, 3);
}

function layoutHeight(groups, width) {
  const columns = columnsFor(groups, width);
  return Math.ceil(groups.length / columns) * 260;
}

function boxesFor(groups, width, height) {
  const columns = columnsFor(groups, width);
  const rows = Math.ceil(groups.length / columns);
  const gap = groups.length > 1 ? 70 : 0;
  const box = { width: (width - gap * (columns - 1)) / columns, height: (height - gap * (rows - 1)) / rows };
  const across = (n) => ({ x: (n % columns) * (box.width + gap), y: Math.floor(n / columns) * (box.height + gap) });
  return groups.map((_, n) => ({ ...across(n), ...box }));
}

/** Places for nodes on an ellipse within their region's box; each region's is turned, so that links between
 * regions do not lie on one another. */
function ring(nodes, box, turn) {
  const middle = { x: box.x + box.width / 2, y: box.y + box.height / 2 - 6 };
  if (nodes.length === 1) return [middle];
  const [rx, ry] = [Math.min(box.width / 2 - 60, box.height * 0.8), box.height / 2 - 58];
  return nodes.map((_, n) => {
    const begin = nodes.length === 2 && !turn ? Math.PI : Math.PI / 2 + 0.3 * turn;
    const angle = (n / nodes.length) * 2 * Math.PI - begin;
    return { x: middle.x + rx * Math.cos(angle), y: middle.y + ry * Math.sin(angle) };
  });
}

/**
 * Each pair of nodes once, with what both ends say of their link; those that should have one and do not, too.
 * None where links are told by region.
 */
export function linksOf(view) {
  if (!view.links) return [];
  const pairs = new Map();
  const key = (a, b) => (a < b ? `${a} ${b}` : `${b} ${a}`);
  for (const link of view.links) {
    const [a, b] = [link.from, link.to].sort();
    const pair = pairs.get(key(a, b)) ?? { key: key(a, b), a, b, rtt: Infinity, rate: null, queue: 0, state: "up" };
    pair.rtt = Math.min(pair.rtt, link.rtt_ms);
    pair.queue += link.queue_bytes;
    if (link.bytes_per_second !== null) pair.rate = (pair.rate ?? 0) + link.bytes_per_second;
    if (link.silent_ms >= SILENT_MS) pair.state = "silent";
    pairs.set(pair.key, pair);
  }
  const dead = new Set(view.nodes.filter((node) => node.state === "dead").map((node) => node.id));
  for (const pair of pairs.values()) if (dead.has(pair.a) || dead.has(pair.b)) pair.state = "silent";
  const able = view.nodes.filter((node) => node.state === "alive" && !view.untold.includes(node.id));
  for (const [n, one] of able.entries()) {
    for (const other of able.slice(n + 1)) {
      const [a, b] = [one.id, other.id].sort();
      if (!pairs.has(key(a, b))) pairs.set(key(a, b), { key: key(a, b), a, b, rtt: null, rate: null, queue: 0, state: "missing" });
    }
  }
  return [...pairs.values()];
}

function labelled(link) {
  const text = link.state === "missing" ? "no link" : milliseconds(link.rtt) + (link.state === "silent" ? ", silent" : "");
  return { key: link.key, text, x: (link.from.x + link.to.x) / 2, y: (link.from.y + link.to.y) / 2 };
}

function between(view, boxes) {
  const middle = new Map(boxes.map((box) => [box.name, { x: box.x + box.width / 2, y: box.y + box.height / 2 }]));
  return view.regions.filter((pair) => pair.a !== pair.b).map((pair) => {
    const [a, b] = [middle.get(pair.a), middle.get(pair.b)];
    const text = milliseconds(pair.rtt_ms) + (pair.silent ? `, ${pair.silent} silent` : "");
    // Off the middle where lines cross there.
    const part = a.x === b.x || a.y === b.y ? 0.5 : 0.36;
    return { key: `${pair.a} ${pair.b}`, text, x: a.x + (b.x - a.x) * part, y: a.y + (b.y - a.y) * part };
  });
}

function ofRegions(view, width) {
  const groups = [...Map.groupBy(view.nodes, (node) => node.region)];
  const columns = columnsFor(groups, width);
  const gap = columns > 1 ? 90 : 40;
  const boxWidth = (width - gap * (columns - 1)) / columns;
  const perRow = Math.max(1, Math.floor((boxWidth - 16) / CELL));
  const tall = Math.max(...groups.map(([, nodes]) => Math.ceil(nodes.length / perRow))) * CELL + 44;
  const busiest = Math.max(1, ...view.nodes.map((node) => node.messages_per_minute));
  const [regions, nodes] = [[], []];
  groups.forEach(([name, members], n) => {
    const box = { x: (n % columns) * (boxWidth + gap), y: Math.floor(n / columns) * (tall + gap), width: boxWidth, height: tall };
    const agents = members.reduce((sum, node) => sum + node.agents, 0);
    regions.push({ name, title: `${name}: ${members.length} nodes, ${count(agents)} agents`, ...box });
    members.forEach((node, k) => nodes.push({
      ...node, heat: node.messages_per_minute / busiest,
      x: box.x + 8 + (k % perRow) * CELL + CELL / 2, y: box.y + 34 + Math.floor(k / perRow) * CELL + CELL / 2,
    }));
  });
  const middle = new Map(regions.map((box) => [box.name, { x: box.x + box.width / 2, y: box.y + box.height / 2 }]));
  const across = columns > 1 ? view.regions.filter((pair) => pair.a !== pair.b) : [];
  const links = across.map((pair) => ({
    key: `${pair.a} ${pair.b}`, from: middle.get(pair.a), to: middle.get(pair.b),
    rate: pair.bytes_per_second, state: pair.silent ? "silent" : "up",
  }));
  const labels = columns > 1 && groups.length <= 4 ? between(view, regions) : [];
  const legend = "One cell a node, the bluer the more messages it takes; ▲ suspect  ◐ leaving  ✕ dead. "
    + "Lines are the links between regions, with the round trip that half of them exceed.";
  return { kind: "cell", regions, links, labels, nodes, height: Math.ceil(groups.length / columns) * (tall + gap) - gap, legend };
}

function drawRegions(layer, regions) {
  const make = () => svg("g", {}, svg("rect", { class: "region", rx: 8 }), svg("text", { class: "region-name" }));
  keyed(layer, regions, (region) => region.name, make, (group, region) => {
    const { x, y, width, height } = region;
    set(group.firstChild, { x: x + 1, y: y + 1, width: width - 2, height: height - 2 });
    set(group.lastChild, { x: x + 12, y: y + 20 });
    say(group.lastChild, region.title);
  });
}

function drawLinks(layer, links, chosen) {
  keyed(layer, links, (link) => link.key, () => svg("line", { class: "link" }), (line, { from, to, state, ...link }) => {
    set(line, { x1: from.x, y1: from.y, x2: to.x, y2: to.y, "data-state": state });
    set(line, { "stroke-width": 1.2 + Math.min(5, Math.log10(1 + (link.rate ?? 0) / 1000)) });
    const isOther = chosen && link.a && link.a !== chosen && link.b !== chosen;
    set(line, { class: isOther ? "link dim" : "link" });
  });
}

function drawLabels(layer, labels) {
  keyed(layer, labels, (label) => label.key, () => svg("text", { class: "faint label" }), (text, label) => {
    set(text, { x: label.x, y: label.y + 4 });
    say(text, label.text);
  });
}

function made(kind, id, choose) {
  const group = svg("g", { class: kind === "cell" ? "node cell" : "node", tabindex: 0, role: "button" });
  if (kind === "cell") {
    group.append(...["body", "heat"].map((name) => svg("rect", { class: name, width: CELL - 4, height: CELL - 4, x: -CELL / 2 + 2, y: -CELL / 2 + 2, rx: 3 })));
    group.append(svg("rect", { class: "halo", width: CELL, height: CELL, x: -CELL / 2, y: -CELL / 2, rx: 4 }));
    group.append(svg("text", { class: "mark", y: 4 }));
  } else {
    group.append(svg("circle", { class: "halo", r: RADIUS + 5 }), svg("circle", { class: "body", r: RADIUS }));
    group.append(svg("circle", { class: "share", r: RADIUS, transform: "rotate(-90)", pathLength: 100 }));
    group.append(svg("text", { class: "mark", y: 5 }));
    group.append(svg("text", { class: "name label", y: RADIUS + 17 }), svg("text", { class: "faint label", y: RADIUS + 31 }));
  }
  group.addEventListener("click", () => choose(id));
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(id);
  });
  return group;
}

function update(group, node, kind, pressed) {
  const agents = `${count(node.agents)} ${node.agents === 1 ? "agent" : "agents"}`;
  set(group, { transform: `translate(${node.x} ${node.y})`, "data-state": node.state, "aria-label": `${node.name}, ${node.state}, ${agents}`, ...pressed });
  if (kind === "cell") {
    set(group.children[1], { opacity: node.state === "alive" ? (0.08 + 0.8 * node.heat).toFixed(2) : 0 });
    say(group.children[3], node.state === "alive" ? "" : MARKS[node.state] ?? "?");
    return;
  }
  set(group.children[2], { "stroke-dasharray": `${(node.ring_share * 100).toFixed(1)} 100` });
  say(group.children[3], MARKS[node.state] ?? "?");
  say(group.children[4], node.name);
  say(group.children[5], node.state === "alive" ? agents : node.state);
}
