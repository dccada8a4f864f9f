// What is wrong, since when, and what to do about it.

import { counted, duration, html, isGone, isMissed, keyed, moment, nameOf, say, set } from "./elements.js";
import { linksOf } from "./map.js";

const ALARMS_MAX = 8;

const WEEK_S = 7 * 86_400;

/** What a node says of others is some seconds old: a beginning that moves by less has not moved. */
const SAME_MS = 30_000;

/**
 * What is wrong now, errors first: `{key, level, text, advice}`, with the `id` of the node if it is one's; and
 * `since` when, or else what tells of its beginning among events: their `kind`, and `says` if that is not enough.
 */
export function alarmsOf(view) {
  const alarms = [...ofNodes(view), ...ofRegistry(view), ...ofCertificates(view), ...ofLinks(view), ...ofLosses(view)];
  const order = (alarm) => (alarm.level === "error" ? 0 : 1);
  return alarms.sort((one, other) => order(one) - order(other));
}

/** What the node says in lower case and without a full stop. */
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

const STATES = {
  dead: ["error", "is dead: it went without a word", "See whether its machine and its process run, and how its log ends. Started again it joins by itself; its agents connect elsewhere."],
  suspect: ["warn", "is not heard: it may be gone", "Its link is silent. Within seconds it answers or is held for dead; if this comes again and again, see to its load and its network."],
  leaving: ["warn", "is leaving", "It drains and sends its agents elsewhere. Nothing to do if that was meant."],
  joining: ["warn", "is joining, and takes no agents yet", "If it lasts, its log says what it waits for."],
};

function ofNodes(view) {
  return view.nodes.filter((node) => node.state in STATES && (node.state !== "dead" || isMissed(node, view.nodes))).map(({ id, name, state }) => {
    const [level, what, advice] = STATES[state];
    return { key: `${state} ${id}`, level, kind: "node", id, text: `${name} ${what}`, advice };
  });
}

function ofRegistry({ registry, nodes, node }) {
  if (!registry) return [];
  const alarms = [];
  if (!registry.available) {
    const without = registry.failure ? "this node's disk is of no use to the registry" : "most of the nodes that keep the names must run and reach each other";
    const advice = `${sentence(registry.waiting?.reason ?? without)} Agents that have a token are not touched.`;
    alarms.push({ key: "registry", level: "error", kind: "registry", text: "No names can be registered", advice });
  }
  if (registry.failure) {
    const others = registry.available && registry.voters.some((voter) => voter.votes && voter.node !== node);
    const rest = others ? "The other nodes go on." : "Keep its data directory: no other node is known to have all names.";
    const advice = `${sentence(registry.failure)} Make room, or mend it; it is tried again every 5 s. ${rest}`;
    alarms.push({ key: "disk", level: "error", kind: "registry", id: node, text: "This node's disk is of no use to the registry", advice });
  }
  const state = new Map(nodes.map((node) => [node.id, node]));
  const voters = registry.voters.filter((voter) => voter.votes);
  const gone = voters.filter((voter) => !state.has(voter.node) || isGone(state.get(voter.node))).length;
  const spare = Math.floor((voters.length - 1) / 2) - gone;
  if (registry.available && gone > 0) {
    const text = `${gone} of the ${voters.length} nodes that keep the names ${gone === 1 ? "is" : "are"} gone`;
    const advice = spare > 0 ? `${counted(spare, "more loss")} can be borne.` : "If one more goes, no names can be registered. Bring it back, or have another node take its place (arc-relay cluster voters).";
    alarms.push({ key: "voters", level: "warn", kind: "registry", text, advice });
  }
  return alarms;
}

function ofCertificates(view) {
  return Object.entries(view.certificates).flatMap(([id, tls]) => {
    const name = nameOf(view, id);
    const alarms = [];
    const alarm = (key, level, text, advice, more = {}) => alarms.push({ key: `${key} ${id}`, level, kind: "certificate", id, text, advice, ...more });
    const ago = (seconds) => ({ since: view.now - seconds * 1000 });
    const renewal = tls.source === "files" ? "Put a new one into its files: they are read again by themselves." : "It should have been renewed by itself: its log says why it was not.";
    if (tls.expires_in === null) alarm("no-tls", "error", `${name} has no certificate yet`, `Agents cannot connect to it. ${sentence(tls.problem ?? "it is being ordered")}`);
    else if (tls.expires_in < 0) alarm("tls-end", "error", `The certificate of ${name} has expired`, `Agents that check it cannot connect. ${renewal}`, ago(-tls.expires_in));
    else if (tls.expires_in < WEEK_S && tls.source !== "self-signed") alarm("tls-end", "warn", `The certificate of ${name} expires in ${duration(tls.expires_in)}`, renewal, ago(WEEK_S - tls.expires_in));
    if (tls.problem && tls.expires_in !== null) alarm("tls", "warn", `The next certificate of ${name} is not to be had`, sentence(tls.problem), { says: tls.problem });
    return alarms;
  });
}

const LINK_ADVICE = "See whether UDP gets through between their mesh ports, both ways: firewall, routing.";

function ofLinks(view) {
  // That a dead or suspect node does not answer is said already.
  const told = new Set(view.nodes.filter((node) => node.state in STATES).map((node) => node.id));
  const alarms = linksOf(view).filter((link) => link.state !== "up" && !told.has(link.a) && !told.has(link.b)).map((link) => {
    const what = link.state === "silent" ? "The link is silent" : "There is no link";
    const text = `${what} between ${nameOf(view, link.a)} and ${nameOf(view, link.b)}`;
    const begin = link.state === "silent" ? { since: view.now - link.silent } : { says: linkDown(link, view) };
    return { key: `${link.state} ${link.key}`, level: "warn", kind: "link", text, advice: LINK_ADVICE, ...begin };
  });
  const silent = view.links || told.size ? 0 : view.regions.reduce((sum, pair) => sum + pair.silent, 0);
  if (silent) alarms.push({ key: "silent", level: "warn", kind: "link", text: `${counted(silent, "end")} of links hear no answer`, advice: LINK_ADVICE });
  return alarms;
}

/** How this node's events tell that the link is gone; those of others' links it does not have. */
function linkDown(link, view) {
  const peer = { [link.a]: link.b, [link.b]: link.a }[view.node];
  return peer ? `link to ${nameOf(view, peer)} is down` : null;
}

function ofLosses(view) {
  return lossesToMend(view).map(({ reason, why, advice, lasting_s: lasting }) => (
    { key: `loss ${reason}`, level: "warn", kind: "drops", since: view.now - lasting * 1000, text: `Messages are dropped: ${why} (${reason})`, advice }
  ));
}

/** Losses of the last minute that an operator can do something about. */
export function lossesToMend(view) {
  return view.losses.filter(({ advice, last_minute: lost }) => lost > 0 && advice !== null);
}

/** When an alarm began, as far as that is known: by itself, or by the last event that speaks of it. */
function sinceOf(alarm, view, events) {
  if (alarm.since) return alarm.since;
  if (!["node", "registry"].includes(alarm.kind) && !alarm.says) return null;
  const about = nameOf(view, alarm.kind === "node" || alarm.kind === "certificate" ? alarm.id : view.node);
  const isIt = (event) => event.kind === alarm.kind && event.node === about && event.level === alarm.level && event.text === (alarm.says ?? event.text);
  return events.findLast(isIt)?.ts ?? null;
}

/** Shows what is wrong; `choose` shows a node. Screen readers hear of each alarm when it comes. */
export function drawAlarms(list, well, alarms, view, events, choose) {
  say(well, `All is well: ${counted(view.nodes.filter((node) => !isGone(node)).length, "node")}, no alarms`);
  well.hidden = alarms.length > 0;
  const shown = alarms.length > ALARMS_MAX ? alarms.slice(0, ALARMS_MAX - 1) : alarms;
  const rest = alarms.length - shown.length;
  const more = { key: "more", level: "warn", text: `${counted(rest, "more alarm")}`, advice: "What they are about is in the tables below." };
  keyed(list, rest ? [...shown, more] : shown, (alarm) => alarm.key, (alarm) => made(alarm, choose), (item, alarm) => {
    const [text, advice, since] = item.children;
    set(item, { "data-level": alarm.level });
    say(text, `${alarm.level === "error" ? "Error" : "Warning"}: ${alarm.text}`);
    say(advice, alarm.advice);
    const ts = sinceOf(alarm, view, events);
    since.hidden = ts === null;
    // Else a screen reader would hear of it again each second.
    if (ts !== null && !(Math.abs(ts - Date.parse(since.dateTime)) < SAME_MS)) {
      set(since, { datetime: new Date(ts).toISOString() });
      say(since, `since ${moment(ts)}`);
    }
  });
}

function made(alarm, choose) {
  const item = html("li", {}, html("strong"), html("span", { class: "advice" }), html("time", { hidden: "" }));
  if (alarm.id) {
    const button = html("button", { type: "button", "aria-label": `Show the node: ${alarm.text}` }, "Show");
    button.addEventListener("click", () => choose(alarm.id, button));
    item.append(button);
  }
  return item;
}
