// The dashboard: follows the node by server-sent events, and keeps trying when it is lost.

import { clock, duration, say } from "./elements.js";
import { CHARTS, drawCharts, historyTable } from "./charts.js";
import { drawMap } from "./map.js";
import * as tables from "./tables.js";

const SILENT_AFTER_MS = 8_000;
const EVENTS_MAX = 512;
const HISTORY_EVERY_MS = 10_000;

const at = (id) => document.getElementById(id);

const state = { view: null, chosen: null, events: [], epoch: null, next: 0, history: null, historyAt: 0, heardAt: 0, lostAt: null };
let stream = null;
let retry = null;

function connect() {
  clearTimeout(retry);
  stream?.close();
  state.heardAt = Date.now();
  stream = new EventSource("/dashboard/stream");
  stream.onmessage = (message) => show(JSON.parse(message.data));
  stream.onerror = () => lost();
}

/** The connection is lost: a browser tries again by itself, unless it was refused. */
function lost() {
  state.lostAt ??= Date.now();
  retry ??= setTimeout(() => { retry = null; connect(); }, 3_000);
  connection("lost", `connection lost ${clock(state.lostAt)}, trying again`);
}

function connection(name, text) {
  document.body.dataset.connection = name;
  at("connection").dataset.state = name;
  say(at("connection"), text);
}

function show(view) {
  clearTimeout(retry);
  retry = null;
  state.heardAt = Date.now();
  state.lostAt = null;
  state.view = view;
  connection("live", "live");
  draw();
  if (view.epoch !== state.epoch || view.latest_event > state.next) follow(view.epoch);
  if (Date.now() - state.historyAt >= HISTORY_EVERY_MS) remember();
}

function draw() {
  const { view } = state;
  if (!view) return;
  at("main").hidden = false;
  const alarms = tables.alarmsOf(view);
  const own = view.nodes.find((node) => node.id === view.node);
  document.title = `${alarms.length ? `(${alarms.length}) ` : ""}${view.relay} · ${own?.name ?? view.node}`;
  say(at("seen-from"), `seen from ${own?.name ?? view.node}, release ${view.version}, up ${duration(view.uptime)}`);
  tables.drawAlarms(at("alarm-list"), at("well"), alarms);
  tables.drawFigures(at("figures"), view, alarms);
  drawMap(at("map"), at("legend"), view, state.chosen, choose);
  tables.drawDetail(at("detail"), view, state.chosen, () => choose(null));
  tables.drawNodes(at("nodes"), view, choose);
  tables.drawLinks(at("links"), view);
  tables.drawRegistry(at("registry"), view);
  tables.drawCertificates(at("certificates"), view);
  tables.drawLosses(at("losses"), view);
  drawHistory();
}

function choose(id) {
  state.chosen = id === state.chosen ? null : id;
  draw();
}

let following = false;

/** Reads the events that are new. With another epoch the node has started again, and numbers with it. */
async function follow(epoch) {
  if (following) return;
  following = true;
  try {
    if (epoch !== state.epoch) Object.assign(state, { epoch, next: 0, historyAt: 0 });
    const answer = await fetch(`/events?after=${state.next}&epoch=${epoch}&limit=${EVENTS_MAX}`);
    if (!answer.ok) return;
    const page = await answer.json();
    const known = state.events.filter((event) => event.epoch !== page.epoch || event.seq <= state.next);
    const fresh = page.events.map((event) => ({ ...event, epoch: page.epoch }));
    state.events = [...known, ...fresh].slice(-EVENTS_MAX);
    state.next = page.next;
    drawEvents();
  } catch {
    // The stream says by itself that the node is lost.
  } finally {
    following = false;
  }
}

function drawEvents() {
  tables.drawEvents(at("events"), state.events, at("events-level").value);
}

async function remember() {
  state.historyAt = Date.now();
  try {
    const answer = await fetch("/history");
    if (!answer.ok) return;
    state.history = await answer.json();
    drawHistory();
  } catch {
    // As above.
  }
}

function drawHistory() {
  const { history } = state;
  if (!history || !CHARTS.every(([column]) => history.columns[column])) return;
  drawCharts(at("charts"), history, state.view.sample);
  if (at("history-details").open) historyTable(at("history"), history);
}

at("events-level").addEventListener("change", drawEvents);
at("history-details").addEventListener("toggle", drawHistory);
addEventListener("resize", draw);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.chosen) choose(null);
});
// Nobody looks at a hidden page: the node need not make it.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(retry);
    retry = null;
    stream?.close();
    stream = null;
  } else connect();
});
setInterval(() => {
  if (stream && Date.now() - state.heardAt > SILENT_AFTER_MS) lost();
}, 1_000);

connect();
