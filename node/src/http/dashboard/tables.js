// The numbers, tables and lists beside map and charts.

import { lossesToMend } from "./alarms.js";
import { MARKS, bytes, count, counted, duration, facts, html, isGone, isMissed, keyed, milliseconds, moment, nameOf, rate, say, set, table } from "./elements.js";
import { linksOf } from "./map.js";

const percent = (share) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

/** The large numbers: title, value, what is to be known of it, and whether it is as it should be. */
export function drawFigures(list, view) {
  const there = view.nodes.filter((node) => !isGone(node)).length;
  const missed = view.nodes.filter((node) => isMissed(node, view.nodes)).length;
  const regions = new Set(view.nodes.map((node) => node.region)).size;
  const toMend = lossesToMend(view).reduce((sum, loss) => sum + loss.last_minute, 0);
  const lost = view.losses.reduce((sum, loss) => sum + loss.last_minute, 0);
  const figures = [
    ["nodes", missed ? `${there} of ${there + missed}` : count(there), `in ${counted(regions, "region")}`, missed ? "error" : null],
    ["agents connected", count(view.sample.agents), `${counted(view.registered_agents, "name")} registered`],
    ["messages a second", rate(view.sample.messages_per_second), "mean of the last minute"],
    ["dropped, last minute", count(lost), lost === 0 ? "in the cluster" : toMend ? `${count(toMend)} not by agents' doing` : "all by agents' doing", toMend ? "warn" : null],
    ["registry", ...registryFigure(view)],
    ["certificates", ...certificatesFigure(view)],
  ];
  const make = ([title]) => html("div", {}, html("dt", {}, title), html("dd"), html("dd", { class: "note" }));
  keyed(list, figures, ([title]) => title, make, (box, [, text, note, level]) => {
    set(box, { "data-level": level ?? null });
    say(box.children[1], text);
    say(box.children[2], note);
  });
}

function registryFigure({ registry, ...view }) {
  if (!registry) return ["–", "not known"];
  const leader = registry.leader ? `led by ${nameOf(view, registry.leader)}` : "led by nobody";
  return registry.available ? ["open", leader] : ["closed", "takes no names", "error"];
}

function certificatesFigure(view) {
  const all = Object.values(view.certificates);
  if (all.some((tls) => tls.expires_in === null)) return ["missing", "not every node has one", "error"];
  if (!all.length) return view.links ? ["none", "agents come without TLS"] : ["fine", "none ends within 30 days"];
  const first = Math.min(...all.map((tls) => tls.expires_in));
  if (first < 0) return ["expired", "see below", "error"];
  if (all.some((tls) => tls.source === "self-signed")) return ["self-signed", "for trials"];
  return [duration(first), "until the first ends", first < 7 * 86_400 || all.some((tls) => tls.problem) ? "warn" : null];
}

/** What is gone carries nothing, whatever it said last. */
const carried = (node, number) => (isGone(node) ? "–" : count(number));

const stateCell = (state) => (place) => {
  if (!place.firstChild) place.append(html("span", { class: "state" }));
  set(place.firstChild, { "data-state": state });
  say(place.firstChild, `${MARKS[state] ?? "?"} ${state}`);
};

/** All nodes; a name chooses its node. */
export function drawNodes(element, view, choose) {
  const columns = [["Node", "nowrap"], ["Region", "nowrap extra"], ["State"], ["Agents", "number"], ["Messages/min", "number"], ["Ring share", "number"], ["Release", "nowrap extra"], ["Mesh address", "nowrap extra"]];
  const name = (node) => (place) => {
    if (!place.firstChild) {
      const button = html("button", { type: "button", class: "plain" });
      button.addEventListener("click", () => choose(node.id, button));
      place.append(button);
    }
    say(place.firstChild, node.name + (node.id === view.node ? " (this)" : ""));
  };
  const rows = view.nodes.map((node) => ({
    key: node.id,
    cells: [name(node), node.region, stateCell(node.state), carried(node, node.agents), carried(node, node.messages_per_minute),
      percent(node.ring_share), node.version, node.address ?? "–"],
  }));
  table(element, "Nodes, by region and name", columns, rows);
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
    return table(element, "Links by region: there are too many nodes for each", columns, view.regions.map((pair) => ({
      key: `${pair.a} ${pair.b}`,
      cells: [pair.a === pair.b ? `within ${pair.a}` : `${pair.a} – ${pair.b}`, count(pair.links), milliseconds(pair.rtt_ms),
        milliseconds(pair.worst_ms), `${bytes(pair.bytes_per_second)}/s`, count(pair.silent)],
    })));
  }
  const columns = [["Between", "nowrap"], ["State", "nowrap"], ["Round trip", "number"], ["Carries", "number"], ["Waiting", "number"]];
  const rows = linksOf(view).map((link) => ({ key: link.key, cells: [`${nameOf(view, link.a)} – ${nameOf(view, link.b)}`, ...written(link)] }));
  for (const id of view.untold) rows.push({ key: id, cells: [`${nameOf(view, id)}, as it sees them`, "not known", "–", "–", "–"] });
  return table(element, "Links between nodes", columns, rows);
}

/** What is known of the chosen node. */
export function drawDetail(place, view, chosen, close) {
  const node = view.nodes.find(({ id }) => id === chosen);
  place.hidden = !node;
  if (!node) return;
  if (!place.firstChild) {
    const button = html("button", { type: "button" }, "Close");
    button.addEventListener("click", close);
    place.append(html("div", { class: "title" }, html("h3", { tabindex: -1 }), button), html("dl", { class: "facts" }));
  }
  say(place.firstChild.firstChild, node.name);
  const links = linksOf(view).filter((link) => link.a === chosen || link.b === chosen);
  const other = (link) => nameOf(view, link.a === chosen ? link.b : link.a);
  const told = links.map((link) => [`Link to ${other(link)}`, written(link).slice(0, 3).join(", ")]);
  const untold = view.untold.includes(chosen) ? [["Links as it sees them", "not known: it does not answer"]] : [];
  facts(place.lastChild, [
    ["State", `${MARKS[node.state] ?? "?"} ${node.state}`], ["Region", node.region], ["Id", node.id],
    ["Agents", carried(node, node.agents)], ["Messages/min", carried(node, node.messages_per_minute)],
    ["Ring share", percent(node.ring_share)], ["Release", node.version], ["Mesh address", node.address ?? "none"],
    ...told, ...untold,
  ]);
}

/** How the registry is. */
export function drawRegistry(list, view) {
  const { registry } = view;
  if (!registry) return;
  const keeper = (voter) => {
    const node = view.nodes.find(({ id }) => id === voter.node);
    const what = !voter.votes ? " (is being given it)" : !node ? " (not known)" : isGone(node) ? ` (✕ ${node.state})` : "";
    return nameOf(view, voter.node) + what;
  };
  facts(list, [
    ["Takes names", registry.available ? "✓ yes" : "✕ no"],
    ["Waits for", registry.waiting?.reason ?? "nothing"],
    ["Led by", registry.leader ? nameOf(view, registry.leader) : "nobody that is known"],
    ["Kept by", registry.voters.map(keeper).sort().join(", ") || "not known here"],
    ["This node", `${registry.role}, term ${registry.term}, entry ${count(registry.applied)}`],
  ]);
}

/** A place that has a table, or a sentence that says why there is none. */
function tableOr(place, sentence) {
  if (!place.firstChild) place.append(html("p", { class: "muted" }), html("div", { class: "scroll" }, html("table")));
  const [none, box] = place.children;
  none.hidden = sentence === null;
  box.hidden = sentence !== null;
  if (sentence !== null) say(none, sentence);
  return box.firstChild;
}

/** Agents' TLS on all nodes that told. */
export function drawCertificates(place, view) {
  const all = Object.entries(view.certificates).sort(([one], [other]) => nameOf(view, one).localeCompare(nameOf(view, other)));
  const none = view.links ? "Agents connect without TLS here, or a proxy before the nodes speaks it." : "No certificate has a problem or ends within 30 days.";
  const element = tableOr(place, all.length ? null : none);
  const end = (tls) => (tls.expires_in === null ? "✕ none yet" : tls.expires_in < 0 ? "✕ expired" : `in ${duration(tls.expires_in)}`);
  const orders = ({ acme }) => {
    if (acme?.ordering) return "is being ordered";
    return acme ? `the next is due in ${duration(acme.next_in)}` : null;
  };
  const state = (tls) => {
    if (tls.problem) return tls.problem;
    if (tls.expires_in === null || tls.expires_in < 0) return "agents cannot connect";
    return tls.source === "self-signed" ? "for trials: agents must be told to trust it" : orders(tls) ?? "fine";
  };
  const rows = all.map(([id, tls]) => ({ key: id, cells: [nameOf(view, id), end(tls), `${tls.source}: ${state(tls)}`] }));
  table(element, "Certificates for agents", [["Node", "nowrap"], ["Ends", "nowrap"], ["From"]], rows);
}

/** What was dropped, by reason. */
export function drawLosses(place, view) {
  const asked = view.nodes.filter((node) => !isGone(node)).length - view.untold.length;
  const of = view.untold.length ? `, on the ${counted(asked, "node")} that answered` : "";
  const element = tableOr(place, view.losses.length ? null : `None since the start${of}.`);
  const rows = [...view.losses].sort((one, other) => other.total - one.total).map((loss) => ({
    key: loss.reason,
    cells: [`${loss.why} (${loss.reason})`, count(loss.last_minute), count(loss.total)],
  }));
  table(element, "Dropped messages by reason", [["Because"], ["Last minute", "number"], ["Since start", "number"]], rows);
}

const LEVELS = ["info", "warn", "error"];
const LEVEL_WORDS = { info: "info", warn: "warning", error: "error" };

/** The events that are at least of this level, the latest first. */
export function drawEvents(list, none, events, least) {
  const shown = events.filter((event) => LEVELS.indexOf(event.level) >= LEVELS.indexOf(least)).reverse();
  none.hidden = shown.length > 0;
  keyed(list, shown, (event) => `${event.epoch} ${event.seq}`, made, (item, event) => say(item.firstChild.firstChild, moment(event.ts)));
}

function made({ ts, level, kind, node, text }) {
  const time = html("time", { datetime: new Date(ts).toISOString() });
  const about = html("span", { class: "about" }, kind === "node" || kind === "relay" ? node : `${node}, ${kind}`);
  return html("li", { "data-level": level }, html("p", { class: "meta" }, time, " ", html("span", { class: "level" }, LEVEL_WORDS[level] ?? level), " ", about), html("p", {}, text));
}
