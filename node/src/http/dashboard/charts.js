// Charts of the last hour. Each is a picture with its summary in words, and can be read step by step with the
// arrow keys; the table below them has all numbers.

import { bytes, clock, count, duration, html, keyed, milliseconds, rate, say, set, svg, table } from "./elements.js";

const WIDTH = 360;
const HEIGHT = 84;

/** Steps that are shown at least: five minutes. Then the picture grows with what is known, up to an hour. */
const STEPS_MIN = 30;

/** Column of the history, title, and how a value is written. */
export const CHARTS = [
  ["messages_per_second", "Messages a second, cluster", rate],
  ["agents", "Agents, cluster", count],
  ["nodes", "Nodes", count],
  ["delivered_per_second", "Delivered a second, this node", rate],
  ["dropped_per_second", "Dropped a second, this node", rate],
  ["slowest_link_ms", "Slowest link, this node", milliseconds],
];

/** Draws the charts of `history` into `place`, with the values of `now`. */
export function drawCharts(place, history, now) {
  keyed(place, CHARTS, ([column]) => column, made, (figure, [column, title, written]) => {
    figure.data = { history, column, title, written, now: now[column] };
    draw(figure);
  });
}

function made([, title]) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: 0 },
    svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    svg("path", { class: "area" }), svg("path", { class: "curve" }), svg("line", { class: "cursor", y1: 0, y2: HEIGHT }));
  const figure = html("figure", { class: "chart" },
    html("figcaption", {}, html("span", {}, title), html("output")), picture,
    html("div", { class: "range" }, html("span"), html("span")));
  const to = (step) => { figure.cursor = step; draw(figure); };
  const steps = () => figure.data.history.columns[figure.data.column].length;
  picture.addEventListener("pointermove", (event) => {
    const at = event.offsetX / picture.clientWidth;
    const span = Math.max(STEPS_MIN, steps());
    to(Math.min(steps() - 1, Math.floor(at * span) - (span - steps())));
  });
  picture.addEventListener("pointerleave", () => to(null));
  picture.addEventListener("blur", () => to(null));
  picture.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -360, End: 360 }[event.key];
    if (!move) return;
    event.preventDefault();
    to(Math.min(steps() - 1, Math.max(0, (figure.cursor ?? steps() - 1) + move)));
  });
  return figure;
}

function draw(figure) {
  const { history, column, title, written, now } = figure.data;
  const values = history.columns[column];
  const known = values.filter((value) => value !== null);
  const [lowest, highest] = [Math.min(...known), Math.max(...known)];
  const top = Math.max(highest * 1.1, 1);
  const span = Math.max(STEPS_MIN, values.length);
  const x = (n) => ((span - values.length + n + 0.5) / span) * WIDTH;
  const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 6);
  const [caption, picture, range] = figure.children;
  const [, area, curve, cursor] = picture.children;
  set(curve, { d: runs(values).map((run) => `M${run.map(([n, value]) => `${x(n).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}`).join("") });
  set(area, { d: runs(values).map((run) => `M${x(run[0][0]).toFixed(1)} ${HEIGHT}L${run.map(([n, value]) => `${x(n).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}L${x(run.at(-1)[0]).toFixed(1)} ${HEIGHT}Z`).join("") });
  const step = figure.cursor ?? null;
  const shown = step === null ? values.length - 1 : step;
  const isNow = step === null || step < 0;
  const value = isNow ? now : values[shown] ?? null;
  set(cursor, { x1: x(shown), x2: x(shown), visibility: isNow ? "hidden" : null });
  const at = isNow ? "" : ` at ${clock(timeOf(history, shown, values.length))}`;
  say(caption.lastChild, (value === null ? "not known" : written(value)) + at);
  say(range.firstChild, `${duration((span * history.step_ms) / 1000)} ago`);
  say(range.lastChild, known.length ? `highest ${written(highest)}` : "no data yet");
  const words = known.length ? `now ${written(now)}, lowest ${written(lowest)}, highest ${written(highest)} in the last hour` : "no data yet";
  set(picture, { "aria-label": `${title}: ${words}. Arrow keys read it step by step.` });
}

/** Neighbours whose values are known; one alone becomes a short stroke. */
function runs(values) {
  const all = [];
  values.forEach((value, n) => {
    if (value === null) return;
    if (n > 0 && values[n - 1] !== null && all.length) all.at(-1).push([n, value]);
    else all.push([[n, value]]);
  });
  return all.map((run) => (run.length > 1 ? run : [run[0], [run[0][0] + 0.6, run[0][1]]]));
}

const timeOf = (history, step, steps) => history.last - (steps - 1 - step) * history.step_ms;

/** Writes the last hour into a table, a row every five minutes. */
export function historyTable(element, history) {
  const steps = history.columns.agents.length;
  const columns = [["Time", "nowrap"], ...CHARTS.map(([, title]) => [title, "number"]), ["Waiting in links", "number"]];
  const rows = [];
  for (let step = steps - 1; step >= 0; step -= 30) {
    const value = (column, written) => {
      const number = history.columns[column][step];
      return number === null ? "–" : written(number);
    };
    const time = clock(timeOf(history, step, steps));
    const cells = [time, ...CHARTS.map(([column, , written]) => value(column, written)), value("link_queue_bytes", bytes)];
    rows.push({ key: rows.length, cells });
  }
  table(element, columns, rows);
}
