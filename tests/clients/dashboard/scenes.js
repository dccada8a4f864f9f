// Clusters that no test can start: a hundred nodes, and all ailments at a time. A server for the dashboard's
// own files, which sends what a node of such a cluster would. `live.js` checks that a real node's frames have
// this form.

'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const HTTP = path.join(__dirname, '../../../node/src/http');
const SHARED = ['colours.css', 'icon.svg'];

const fileOf = (name) => fs.readFileSync(path.join(HTTP, SHARED.includes(name) ? 'page' : 'dashboard', name));
const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const DAY = 86_400;

const id = (n) => (n + 1).toString(16).padStart(16, '0');

function node(n, region, more = {}) {
  return {
    id: id(n), name: `${region}-${n}`, region, state: 'alive', version: '0.1.0', address: `10.0.0.${n}:7946`,
    agents: 180 + 17 * n, messages_per_minute: 2_400 + 700 * ((n * 7) % 5), ring_share: 0.33, ...more,
  };
}

function certificate(more = {}) {
  return { source: 'acme', names: ['relay.example.org'], expires_at: 0, expires_in: 61 * DAY, problem: null, acme: { failures: 0, next_in: 31 * DAY, ordering: false }, ...more };
}

function registry(voters, more = {}) {
  return {
    id: '00', role: 'leader', available: true, waiting: null, leader: id(0), term: 3, applied: 1_712,
    voters: voters.map((n) => ({ node: id(n), seed: `10.0.0.${n}:7946`, votes: true, lag: 0 })), failure: null, ...more,
  };
}

/** Both ends of all links between nodes that are there; `differ` says what is unlike the others. */
function linksOf(nodes, differ = () => ({})) {
  const there = nodes.filter((node) => node.state !== 'dead');
  return there.flatMap((from) => there.filter((to) => to !== from).map((to) => ({
    from: from.id, to: to.id, rtt_ms: from.region === to.region ? 0.8 : 81.4, bytes_per_second: 120_000, queue_bytes: 0, silent_ms: null,
    ...differ(from, to),
  }))).filter((link) => !link.none).map(({ none, ...link }) => link);
}

function regionsOf(nodes, silent = 0) {
  const names = [...new Set(nodes.map((node) => node.region))];
  const size = (name) => nodes.filter((node) => node.region === name).length;
  return names.flatMap((a, n) => names.slice(n).map((b) => ({
    a, b, links: a === b ? (size(a) * (size(a) - 1)) / 2 : size(a) * size(b), rtt_ms: a === b ? 0.9 : 81.4 + n * 60,
    worst_ms: a === b ? 3.1 : 140, bytes_per_second: 31_000_000, silent: a === b ? 0 : silent,
  })));
}

const OFFLINE = { reason: 'offline', total: 1_204, last_minute: 31, lasting_s: 600, why: 'the recipient is not connected', advice: null };
const LINK_FULL = {
  reason: 'link_full', total: 512, last_minute: 90, lasting_s: 7_200, why: "the queue to the recipient's node was full",
  advice: 'That line is too slow, or that node stands still: see “Waiting” among the links.',
};

function view(nodes, more = {}) {
  const there = nodes.filter((node) => node.state !== 'dead');
  const sum = (column) => there.reduce((sum, node) => sum + node[column], 0);
  return {
    epoch: 1, now: Date.now(), uptime: 93_784, relay: 'relay.example.org', version: '0.1.0', node: nodes[0].id, nodes,
    registered_agents: Math.round(sum('agents') * 1.4),
    sample: {
      nodes: there.length, agents: sum('agents'), messages_per_second: sum('messages_per_minute') / 60, accepted_per_second: 40, delivered_per_second: 120.4,
      dropped_per_second: 0, slowest_link_ms: 84.2, link_queue_bytes: 0,
    },
    links: nodes.length > 24 ? null : linksOf(nodes), regions: regionsOf(nodes), untold: [], losses: [], registry: registry([0, 1, 2]),
    certificates: {}, latest_event: 4, ...more,
  };
}

const spread = (count, regions) => Array.from({ length: count }, (_, n) => node(n, regions[n % regions.length], { ring_share: regions.length / count }))
  .sort((a, b) => a.region.localeCompare(b.region));

function alone() {
  const only = node(0, 'default', { name: 'relay', address: null, agents: 0, messages_per_minute: 0, ring_share: 1 });
  return view([only], { uptime: 4, registry: registry([0]), links: [] });
}

function healthy() {
  // The last of them lost its disk: its former life is remembered for a while.
  const former = node(9, 'us-east', { ...node(2, 'us-east'), id: id(9), state: 'dead', ring_share: 0, agents: 0 });
  const nodes = [node(0, 'eu-west'), node(1, 'eu-west'), node(2, 'us-east'), former];
  const losses = [OFFLINE, { reason: 'rate_limit', total: 12, last_minute: 0, lasting_s: 0, why: 'the sender was over its rate', advice: null }];
  return view(nodes, { losses, certificates: Object.fromEntries(nodes.map((node) => [node.id, certificate()])) });
}

/** Everything that can be wrong at a time. */
function ailing() {
  const nodes = [
    node(0, 'eu-west'), node(1, 'eu-west', { state: 'dead', ring_share: 0, agents: 0 }), node(2, 'eu-west', { state: 'suspect' }),
    node(3, 'us-east'), node(4, 'us-east', { state: 'leaving', ring_share: 0 }), node(5, 'us-east'),
  ];
  const differ = (from, to) => {
    if ([from.id, to.id].includes(id(2))) return { silent_ms: 4_100 };
    return { none: [id(0), id(3)].includes(from.id) && [id(0), id(3)].includes(to.id), queue_bytes: to.id === id(5) ? 18 << 20 : 0 };
  };
  return view(nodes, {
    links: linksOf(nodes, differ), untold: [id(2)],
    losses: [LINK_FULL, { ...OFFLINE, total: 31, last_minute: 2, lasting_s: 20 }],
    registry: registry([0, 1, 2], { role: 'candidate', available: false, leader: null, waiting: { reason: 'waiting for 10.0.0.1:7946 and 10.0.0.2:7946: start them, or see why this node does not reach them', seeds: [] } }),
    certificates: {
      [id(0)]: certificate({ expires_in: 3 * DAY, problem: 'the authority could not reach port 80 of relay.example.org: open it', acme: { failures: 7, next_in: 5_400, ordering: false } }),
      [id(3)]: certificate({ source: 'files', expires_in: -7_000, acme: undefined }),
      [id(5)]: certificate({ source: 'self-signed', expires_in: 364 * DAY, acme: undefined }),
    },
  });
}

const twoDozen = () => view(spread(24, ['ap-south', 'eu-west', 'us-east']));

/** A hundred nodes, some of them gone. */
function hundred() {
  const state = { 17: { state: 'dead' }, 40: { state: 'suspect' }, 77: { state: 'leaving' } };
  const nodes = spread(100, ['ap-south', 'eu-west', 'us-east']).map((node, n) => ({ ...node, agents: 1_000, messages_per_minute: 600 * (n % 23), ...state[n] }));
  return view(nodes, { regions: regionsOf(nodes, 3) });
}

const EVENTS = [
  ['info', 'relay', 'eu-west-0', 'started, release 0.1.0'], ['info', 'relay', 'eu-west-0', 'takes agents'],
  ['warn', 'node', 'eu-west-2', 'is not heard: it may be gone'], ['error', 'node', 'eu-west-1', 'is dead: it went without a word'],
].map(([level, kind, node, text], n) => ({ seq: n + 1, ts: Date.now() - 600_000 + n * 1_000, level, kind, node, text }));

const COLUMNS = { nodes: 3, agents: 591, messages_per_second: 145, accepted_per_second: 40, delivered_per_second: 120, dropped_per_second: 2, slowest_link_ms: 84, link_queue_bytes: 0 };

/** An hour with day and night, and a gap while the machine slept. */
function history(steps) {
  const wave = (value) => Array.from({ length: steps }, (_, n) => (n > 100 && n < 112 ? null : Math.round(value * (80 + 20 * Math.sin(n / 25) + (n % 7)) ) / 100));
  return { last: Date.now(), step_ms: 10_000, columns: Object.fromEntries(Object.entries(COLUMNS).map(([name, value]) => [name, wave(value)])) };
}

/** Serves the dashboard with a scene, which can be changed; `steps` of the hour are known. */
async function serve(scene, steps = 360) {
  const shown = { scene };
  const answers = {
    '/events': () => ['application/json', JSON.stringify({ epoch: shown.scene.epoch, events: EVENTS, next: 4, missed: 0 })],
    '/history': () => ['application/json', JSON.stringify(history(steps))],
    '/': () => ['text/html', fileOf('index.html').toString().replaceAll('{relay}', shown.scene.relay).replace(/\{\w+\}/g, 'as text')],
  };
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://host');
    if (pathname === '/dashboard/stream') return follow(shown, response);
    const file = path.basename(pathname);
    const [type, body] = answers[pathname]?.() ?? [TYPES[path.extname(file)], fileOf(file)];
    return response.setHeader('content-type', type).end(body);
  });
  const open = (port) => new Promise((listening) => server.listen(port, '127.0.0.1', listening));
  await open(0);
  const { port } = server.address();
  return {
    url: `http://127.0.0.1:${port}/`,
    show: (scene) => { shown.scene = scene; },
    refuse: (refuses) => { shown.refuses = refuses; },
    close: () => { server.closeAllConnections(); server.close(); },
    openAgain: () => open(port),
  };
}

function follow(shown, response) {
  if (shown.refuses) return response.writeHead(503).end();
  response.setHeader('content-type', 'text/event-stream');
  const send = () => response.write(`data: ${JSON.stringify({ ...shown.scene, now: Date.now() })}\n\n`);
  send();
  const ticking = setInterval(send, 500);
  return response.on('close', () => clearInterval(ticking));
}

module.exports = { ailing, alone, healthy, hundred, serve, twoDozen };
