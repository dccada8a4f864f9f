// The dashboard: follows the node by server-sent events, and keeps trying when it is lost.

import { alarmsOf, drawAlarms } from "./alarms.js";
import { CHARTS, drawCharts, historyTable } from "./charts.js";
import { clock, duration, nameOf, say } from "./elements.js";
import { drawMap } from "./map.js";
import * as tables from "./tables.js";

const SILENT_AFTER_MS = 8_000;
const RETRY_EVERY_MS = 3_000;
const EVENTS_MAX = 512;
const HISTORY_EVERY_MS = 10_000;

const at = (id) => document.getElementById(id);

const state = { view: null, chosen: null, opener: null, events: [], epoch: null, next: 0, history: null, historyAt: 0, shownAt: 0, heardAt: 0, lostAt: null };
let stream = null;
let retry = null;

function connect() {
  clearTimeout(retry);
  retry = null;
  stream?.close();
  state.heardAt = Date.now();
  if (!state.lostAt) connection("waiting", "connecting");
  stream = new EventSource("/dashboard/stream");
  stream.onmessage = (message) => show(JSON.parse(message.data));
  stream.onerror = lost;
}

/** The connection is lost, or was refused: then a browser does not try again by itself. */
function lost() {
  state.lostAt ??= Date.now();
  retry ??= setTimeout(connect, RETRY_EVERY_MS);
  const isRefused = stream?.readyState === EventSource.CLOSED;
  const why = isRefused ? "The node shows nothing now: too many may look at it already." : "Connection lost.";
  const what = state.view ? ` What you see is of ${clock(state.shownAt)}.` : "";
  say(at("lost"), `${why}${what} Trying again every ${RETRY_EVERY_MS / 1000} s; other nodes have dashboards, too.`);
  connection("lost", "connection lost");
}

function connection(name, text) {
  document.body.dataset.connection = name;
  at("lost").hidden = name !== "lost";
  say(at("connection"), text);
  title();
}

function show(view) {
  clearTimeout(retry);
  retry = null;
  state.heardAt = state.shownAt = Date.now();
  state.lostAt = null;
  state.view = view;
  at("text").hidden = true;
  at("board").hidden = false;
  connection("live", "live");
  draw();
  if (view.epoch !== state.epoch || view.latest_event > state.next) follow(view.epoch);
  if (Date.now() - state.historyAt >= HISTORY_EVERY_MS) remember();
}

function draw() {
  const { view } = state;
  if (!view) return;
  say(at("seen-from"), `seen from ${nameOf(view, view.node)}, release ${view.version}, up ${duration(view.uptime)}`);
  drawAlarms(at("alarm-list"), at("well"), alarmsOf(view), view, state.events, choose);
  tables.drawFigures(at("figures"), view);
  drawMap(at("map"), at("legend"), view, state.chosen, choose);
  tables.drawDetail(at("detail"), view, state.chosen, close);
  tables.drawNodes(at("nodes"), view, choose);
  at("links-details").hidden = view.nodes.length === 1;
  tables.drawLinks(at("links"), view);
  tables.drawRegistry(at("registry"), view);
  tables.drawCertificates(at("certificates"), view);
  tables.drawLosses(at("losses"), view);
  drawHistory();
}

/** What a tab shows that is not looked at: how many alarms there are, or that nobody knows. */
function title() {
  const { view } = state;
  if (!view) return;
  const alarms = alarmsOf(view).length;
  const sign = document.hidden ? "⏸ " : state.lostAt ? "✕ " : alarms ? `(${alarms}) ` : "";
  document.title = `${sign}${view.relay} · ${nameOf(view, view.node)}`;
}

/** Shows a node, or no longer; what was pressed for it gets the focus back. */
function choose(id, opener) {
  if (id === state.chosen) return close();
  Object.assign(state, { chosen: id, opener });
  draw();
  at("detail").querySelector("h3")?.focus();
}

function close() {
  const { opener } = state;
  Object.assign(state, { chosen: null, opener: null });
  draw();
  opener?.focus();
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
  tables.drawEvents(at("events"), at("no-events"), state.events, at("events-level").value);
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
  if (event.key === "Escape" && state.chosen) close();
});
// Nobody looks at a hidden page: the node need not make it.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(retry);
    retry = null;
    stream?.close();
    stream = null;
    title();
  } else connect();
});
setInterval(() => {
  if (stream && Date.now() - state.heardAt > SILENT_AFTER_MS) lost();
}, 1_000);

say(at("zone"), `Times are of ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
connect();
