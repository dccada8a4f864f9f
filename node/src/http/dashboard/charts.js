// Charts of the last hour. Each is a picture with its summary in words, and is read step by step with the arrow
// keys, as a slider is moved; the table below them has the numbers, too.

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
  ["slowest_link_ms", "Slowest link, this node", (ms) => (ms === 0 ? "no link" : milliseconds(ms))],
];

/** Draws the charts of `history` into `place`, with the values of `now`. */
export function drawCharts(place, history, now) {
  keyed(place, CHARTS, ([column]) => column, made, (figure, [column, title, written]) => {
    figure.data = { history, column, title, written, now: now[column] };
    draw(figure);
  });
}

function made([column, title]) {
  const line = (name, y) => svg("line", { class: name, x1: 0, x2: WIDTH, y1: y, y2: y });
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    line("grid", 0.5), line("grid", HEIGHT / 2), line("axis", HEIGHT - 0.5),
    svg("path", { class: "area" }), svg("path", { class: "curve" }), svg("line", { class: "cursor", y1: 0, y2: HEIGHT }));
  const id = `summary-${column}`;
  const plot = html("div", { class: "plot", role: "slider", tabindex: 0, "aria-label": title, "aria-describedby": id }, picture, html("span", { class: "top" }));
  const figure = html("figure", { class: "chart", "data-column": column },
    html("figcaption", {}, html("span", {}, title), html("span", { class: "value" })), plot,
    html("div", { class: "range" }, html("span"), html("span", {}, "now")), html("p", { id, class: "unseen" }));
  const steps = () => figure.data.history.columns[column].length;
  const to = (step) => {
    figure.cursor = step === null ? null : timeOf(figure.data.history, Math.min(steps() - 1, Math.max(0, step)), steps());
    draw(figure);
  };
  plot.addEventListener("pointermove", (event) => {
    const span = Math.max(STEPS_MIN, steps());
    to(Math.floor((event.offsetX / plot.clientWidth) * span) - (span - steps()));
  });
  plot.addEventListener("pointerleave", () => to(null));
  plot.addEventListener("focus", () => to(steps() - 1));
  plot.addEventListener("blur", () => to(null));
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 30, PageDown: -30, Home: -360, End: 360 }[event.key];
    if (!move) return;
    event.preventDefault();
    to((stepAt(figure) ?? steps() - 1) + move);
  });
  return figure;
}

/** The step that is read; none if it is the present. */
function stepAt({ data: { history, column }, cursor }) {
  if (cursor === null || cursor === undefined) return null;
  const steps = history.columns[column].length;
  return Math.min(steps - 1, Math.max(0, steps - 1 - Math.round((history.last - cursor) / history.step_ms)));
}

function draw(figure) {
  const { history, column, written, now } = figure.data;
  const values = history.columns[column];
  const known = values.filter((value) => value !== null);
  const [lowest, highest] = [Math.min(...known), Math.max(...known)];
  const top = roundUp(Math.max(highest, now, 1));
  const span = Math.max(STEPS_MIN, values.length);
  const x = (n) => (((span - values.length + n + 0.5) / span) * WIDTH).toFixed(1);
  const y = (value) => (HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1);
  const [caption, plot, range, summary] = figure.children;
  const [, , , area, curve, cursor] = plot.firstChild.children;
  const lines = runs(values).map((run) => ({ run, points: run.map(([n, value]) => `${x(n)} ${y(value)}`).join("L") }));
  set(curve, { d: lines.map(({ points }) => `M${points}`).join("") });
  set(area, { d: lines.map(({ run, points }) => `M${x(run[0][0])} ${HEIGHT}L${points}L${x(run.at(-1)[0])} ${HEIGHT}Z`).join("") });
  const step = stepAt(figure);
  set(cursor, { x1: x(step ?? 0), x2: x(step ?? 0), visibility: step === null ? "hidden" : null });
  const value = step === null ? now : values[step];
  const at = step === null ? "" : ` at ${clock(timeOf(history, step, values.length))}`;
  const text = (value === null ? "not known" : written(value)) + at;
  say(caption.lastChild, text);
  say(plot.lastChild, written(top));
  say(range.firstChild, `${duration((span * history.step_ms) / 1000)} ago`);
  set(plot, { "aria-valuemin": 0, "aria-valuemax": values.length - 1, "aria-valuenow": step ?? values.length - 1, "aria-valuetext": text });
  const length = duration((values.length * history.step_ms) / 1000);
  say(summary, known.length ? `In the last ${length} lowest ${written(lowest)}, highest ${written(highest)}. Arrow keys read it step by step.` : "No data yet.");
}

/** The next of 1, 2, 3, 5, 10, 20 …: where the scale ends. */
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 5, 10].find((part) => part * unit >= value) * unit;
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
  table(element, "The last hour, a row every five minutes", columns, rows);
}
