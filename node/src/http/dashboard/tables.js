// The tables and lists beside map and charts.

import { MARKS, bytes, clock, count, duration, facts, html, keyed, milliseconds, rate, say, set, table } from "./elements.js";
import { linksOf } from "./map.js";

const nameOf = (view, id) => view.nodes.find((node) => node.id === id)?.name ?? id;
const isGone = (node) => node.state === "dead" || node.state === "left";
const percent = (share) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

/** Losses that an operator can do something about, in words; the others are agents' own doing. */
const REASONS = {
  offline: ["the recipient is not connected", false],
  unresolved: ["the recipient's place was not found out in time", true],
  route_full: ["too many waited for the recipient's place", true],
  link_full: ["the queue to the recipient's node was full", true],
  link_lost: ["the link to the recipient's node was lost", true],
  stale: ["they came back from a former node too late", true],
  stray: ["another node had no business to send them", true],
  refused: ["the recipient takes none", false],
  slow_consumer: ["the recipient read too slowly and was cut off", true],
  session_lost: ["the recipient's connection broke or went silent", true],
  rate_limit: ["the sender was over its rate", false],
  invalid: ["they were no valid messages", false],
  not_permitted: ["the sender's token does not allow them", false],
};

/** What is wrong now: `{key, level, text}`, errors first. */
export function alarmsOf(view) {
  const alarms = [];
  const alarm = (key, level, text) => alarms.push({ key, level, text });
  for (const { id, name, state } of view.nodes) {
    if (state === "dead") alarm(`dead ${id}`, "error", `${name} is dead: it went without a word`);
    if (state === "suspect") alarm(`suspect ${id}`, "warn", `${name} is not heard: it may be gone`);
    if (state === "leaving") alarm(`leaving ${id}`, "warn", `${name} is leaving`);
    if (state === "joining") alarm(`joining ${id}`, "warn", `${name} is joining, and takes no agents yet`);
  }
  const { registry } = view;
  if (registry && !registry.available) {
    const why = registry.waiting ? `: ${registry.waiting.reason}` : "";
    alarm("registry", "error", `No names can be registered${why}`);
  }
  if (registry?.failure) alarm("disk", "error", `The disk of ${nameOf(view, view.node)} is of no use to the registry: ${registry.failure}`);
  for (const [id, tls] of Object.entries(view.certificates)) certificateAlarm(alarm, nameOf(view, id), id, tls);
  linkAlarms(alarm, view);
  for (const { reason, last_minute: lost } of view.losses) {
    const [why, isOurs] = REASONS[reason] ?? [reason, true];
    if (isOurs && lost > 0) alarm(`loss ${reason}`, "warn", `Messages are dropped: ${why} (${reason})`);
  }
  return alarms.sort((one, other) => (one.level === "error" ? 0 : 1) - (other.level === "error" ? 0 : 1));
}

function certificateAlarm(alarm, name, id, tls) {
  if (tls.problem) alarm(`tls ${id}`, "warn", `Certificate of ${name}: ${tls.problem}`);
  if (tls.expires_in === null) alarm(`tls none ${id}`, "error", `${name} has no certificate yet: agents cannot connect to it`);
  else if (tls.expires_in < 0) alarm(`tls end ${id}`, "error", `The certificate of ${name} has expired`);
  else if (tls.expires_in < 7 * 86_400) alarm(`tls end ${id}`, "warn", `The certificate of ${name} expires in ${duration(tls.expires_in)}`);
}

function linkAlarms(alarm, view) {
  const gone = new Set(view.nodes.filter(isGone).map((node) => node.id));
  for (const link of linksOf(view)) {
    // That a dead node does not answer is said already.
    if (gone.has(link.a) || gone.has(link.b)) continue;
    const ends = `${nameOf(view, link.a)} and ${nameOf(view, link.b)}`;
    if (link.state === "silent") alarm(`silent ${link.key}`, "warn", `The link between ${ends} is silent`);
    if (link.state === "missing") alarm(`missing ${link.key}`, "warn", `There is no link between ${ends}`);
  }
  if (view.links) return;
  const silent = view.regions.reduce((sum, pair) => sum + pair.silent, 0);
  if (silent) alarm("silent", "warn", `${silent} ends of links hear no answer`);
}

const ALARMS_MAX = 10;

/** Shows what is wrong. Screen readers hear of each alarm when it comes. */
export function drawAlarms(list, well, alarms) {
  well.hidden = alarms.length > 0;
  const more = { key: "more", level: "warn", text: `${alarms.length - ALARMS_MAX} more: the tables below have them` };
  const shown = alarms.length > ALARMS_MAX ? [...alarms.slice(0, ALARMS_MAX), more] : alarms;
  keyed(list, shown, (alarm) => alarm.key, () => html("li"), (item, { level, text }) => {
    set(item, { "data-level": level });
    say(item, `${level === "error" ? "Error" : "Warning"}: ${text}`);
  });
}

/** The large numbers. */
export function drawFigures(list, view, alarms) {
  const there = view.nodes.filter((node) => !isGone(node)).length;
  const lost = view.losses.reduce((sum, loss) => sum + loss.last_minute, 0);
  const figures = [
    ["nodes", there === view.nodes.length ? count(there) : `${there} of ${view.nodes.length}`, there < view.nodes.length],
    ["agents connected", count(view.sample.agents)],
    ["names registered", count(view.registered_agents)],
    ["messages a second", rate(view.sample.messages_per_second)],
    ["dropped, last minute", count(lost)],
    ["alarms", String(alarms.length), alarms.length > 0],
  ];
  keyed(list, figures, ([title]) => title, ([title]) => html("div", {}, html("dt", {}, title), html("dd")), (box, [, text, bad]) => {
    set(box, { "data-level": bad ? "warn" : null });
    say(box.lastChild, text);
  });
}

const stateCell = (state) => (place) => {
  if (!place.firstChild) place.append(html("span", { class: "state" }));
  set(place.firstChild, { "data-state": state });
  say(place.firstChild, `${MARKS[state] ?? "?"} ${state}`);
};

/** All nodes; a name chooses its node. */
export function drawNodes(element, view, choose) {
  const columns = [["Node", "nowrap"], ["Region", "nowrap"], ["State"], ["Agents", "number"], ["Messages/min", "number"], ["Ring share", "number"], ["Release", "nowrap"], ["Mesh address", "nowrap"]];
  const name = (node) => (place) => {
    if (!place.firstChild) {
      place.append(html("button", { type: "button", class: "plain" }));
      place.firstChild.addEventListener("click", () => choose(node.id));
    }
    say(place.firstChild, node.name + (node.id === view.node ? " (this)" : ""));
  };
  const rows = view.nodes.map((node) => ({
    key: node.id,
    cells: [name(node), node.region, stateCell(node.state), count(node.agents), count(node.messages_per_minute),
      percent(node.ring_share), node.version, node.address ?? "–"],
  }));
  table(element, columns, rows);
}

const LINK_STATES = { up: "● up", silent: "▲ silent", missing: "✕ missing" };
const written = (link) => [
  LINK_STATES[link.state], link.rtt === null ? "–" : milliseconds(link.rtt),
  link.rate === null ? "not known" : `${bytes(link.rate)}/s`, bytes(link.queue),
];

/** All links; with many nodes those of each pair of regions together. */
export function drawLinks(element, view) {
  const byNode = view.links !== null;
  if (element.dataset.kind !== String(byNode)) {
    element.replaceChildren();
    element.dataset.kind = byNode;
  }
  if (!byNode) {
    const columns = [["Regions"], ["Links", "number"], ["Round trip, median", "number"], ["Worst", "number"], ["Carries", "number"], ["Silent ends", "number"]];
    return table(element, columns, view.regions.map((pair) => ({
      key: `${pair.a} ${pair.b}`,
      cells: [pair.a === pair.b ? `within ${pair.a}` : `${pair.a} – ${pair.b}`, count(pair.links), milliseconds(pair.rtt_ms),
        milliseconds(pair.worst_ms), `${bytes(pair.bytes_per_second)}/s`, count(pair.silent)],
    })));
  }
  const columns = [["Between", "nowrap"], ["State", "nowrap"], ["Round trip", "number"], ["Carries", "number"], ["Waiting", "number"]];
  const rows = linksOf(view).map((link) => ({ key: link.key, cells: [`${nameOf(view, link.a)} – ${nameOf(view, link.b)}`, ...written(link)] }));
  for (const id of view.untold) rows.push({ key: id, cells: [`${nameOf(view, id)}, as it sees them`, "not known", "–", "–", "–"] });
  return table(element, columns, rows);
}

/** What is known of the chosen node. */
export function drawDetail(place, view, chosen, close) {
  const node = view.nodes.find(({ id }) => id === chosen);
  place.hidden = !node;
  if (!node) return;
  if (!place.firstChild) {
    const button = html("button", { type: "button" }, "Close");
    button.addEventListener("click", close);
    place.append(html("h3", {}, html("span"), button), html("dl", { class: "facts" }));
  }
  say(place.firstChild.firstChild, node.name);
  const links = linksOf(view).filter((link) => link.a === chosen || link.b === chosen);
  const other = (link) => nameOf(view, link.a === chosen ? link.b : link.a);
  const told = links.map((link) => [`Link to ${other(link)}`, written(link).slice(0, 3).join(", ")]);
  const untold = view.untold.includes(chosen) ? [["Links as it sees them", "not known: it does not answer"]] : [];
  facts(place.lastChild, [
    ["State", `${MARKS[node.state] ?? "?"} ${node.state}`], ["Region", node.region], ["Id", node.id],
    ["Agents", count(node.agents)], ["Messages/min", count(node.messages_per_minute)],
    ["Ring share", percent(node.ring_share)], ["Release", node.version], ["Mesh address", node.address ?? "none"],
    ...told, ...untold,
  ]);
}

/** How the registry is. */
export function drawRegistry(list, view) {
  const { registry } = view;
  if (!registry) return;
  const keepers = registry.voters.map((voter) => nameOf(view, voter.node) + (voter.votes ? "" : " (is being given it)"));
  facts(list, [
    ["Names can be registered", registry.available ? "✓ yes" : "✕ no"],
    ["Waits for", registry.waiting?.reason ?? "nothing"],
    ["Led by", registry.leader ? nameOf(view, registry.leader) : "nobody that is known"],
    ["Kept by", keepers.join(", ") || "not known here"],
    ["This node", `${registry.role}, term ${registry.term}, entry ${count(registry.applied)}`],
  ]);
}

/** Agents' TLS on all nodes that told. */
export function drawCertificates(place, view) {
  const all = Object.entries(view.certificates);
  if (!place.firstChild) place.append(html("p", { class: "muted" }), html("div", { class: "scroll" }, html("table")));
  const many = view.links === null;
  place.firstChild.hidden = all.length > 0;
  place.lastChild.hidden = all.length === 0;
  say(place.firstChild, many ? "No certificate has a problem or ends within 30 days." : "Agents connect without TLS here, or a proxy before the nodes speaks it.");
  const end = (tls) => (tls.expires_in === null ? "none yet" : tls.expires_in < 0 ? "✕ expired" : `in ${duration(tls.expires_in)}`);
  const rows = all.map(([id, tls]) => ({ key: id, cells: [nameOf(view, id), tls.source, end(tls), tls.problem ?? "fine"] }));
  table(place.lastChild.firstChild, [["Node"], ["From"], ["Ends", "nowrap"], ["State"]], rows);
}

/** What was dropped, by reason. */
export function drawLosses(place, view) {
  if (!place.firstChild) place.append(html("p", { class: "muted" }), html("div", { class: "scroll" }, html("table")));
  const [none, box] = place.children;
  none.hidden = view.losses.length > 0;
  box.hidden = view.losses.length === 0;
  const of = view.untold.length ? `, on the ${view.nodes.filter((node) => !isGone(node)).length - view.untold.length} nodes that answer` : "";
  say(none, `None since the start${of}.`);
  const rows = [...view.losses].sort((one, other) => other.total - one.total).map((loss) => ({
    key: loss.reason,
    cells: [`${(REASONS[loss.reason] ?? [loss.reason])[0]} (${loss.reason})`, count(loss.last_minute), count(loss.total)],
  }));
  table(box.firstChild, [["Because"], ["Last minute", "number"], ["Since start", "number"]], rows);
}

const LEVELS = ["info", "warn", "error"];
const LEVEL_WORDS = { info: "info", warn: "warning", error: "error" };

/** The events that are at least of this level, the latest first. */
export function drawEvents(element, events, least) {
  const shown = events.filter((event) => LEVELS.indexOf(event.level) >= LEVELS.indexOf(least)).reverse();
  const level = (event) => (place) => {
    set(place, { "data-level": event.level });
    say(place, LEVEL_WORDS[event.level] ?? event.level);
  };
  const rows = shown.map((event) => ({ key: `${event.epoch} ${event.seq}`, cells: [clock(event.ts), level(event), event.kind, event.node, event.text] }));
  table(element, [["Time", "nowrap"], ["Level", "nowrap"], ["About", "nowrap"], ["Node", "nowrap"], ["What happened"]], rows);
}
