// Plays an agent with Node's `ws`, as any user of it would.
//
//     node client.js HOST:PORT[,HOST:PORT…] SCENARIO
//
// Given several nodes of one relay, each registration and each connection is with the next of them.
// By TLS if ARC_CA is set; whom to trust, besides those of the web, NODE_EXTRA_CA_CERTS says.
//
// Prints "ok" when all went as PROTOCOL.md says; fails with a stack trace otherwise.

'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const WebSocket = require('ws');

const [relay, scenario] = process.argv.slice(2);
const tls = process.env.ARC_CA ? 's' : '';

const nodes = relay.split(',');

/** The address of the next node. */
function nextNode() {
  nodes.push(nodes.shift());
  return nodes.at(-1);
}

/** Registers an agent and returns its token. */
async function register(agent) {
  const answer = await fetch(`http${tls}://${nextNode()}/register`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ agent_id: agent }),
  });
  assert.equal(answer.status, 200);
  return (await answer.json()).token;
}

/** A connected agent, whose messages wait until somebody takes them. */
class Agent {
  constructor(id, token, socket) {
    Object.assign(this, { id, token, socket, inbox: [], takers: [] });
    socket.on('message', (data, isBinary) => {
      assert.equal(isBinary, false);
      this.arrived(JSON.parse(data.toString()));
    });
    this.closed = new Promise((resolve) => socket.on('close', (code) => resolve(code)));
  }

  static async connect(id, token) {
    token ??= await register(id);
    const socket = new WebSocket(`ws${tls}://${nextNode()}/arc`, { headers: { Authorization: `Bearer ${token}` } });
    const agent = new Agent(id, token, socket);
    await once(socket, 'open');
    const welcome = await agent.receive();
    assert.equal(welcome.type, 'welcome');
    assert.deepEqual(welcome.to, [id]);
    return agent;
  }

  arrived(message) {
    const taker = this.takers.shift();
    if (taker) taker(message);
    else this.inbox.push(message);
  }

  receive() {
    if (this.inbox.length > 0) return Promise.resolve(this.inbox.shift());
    return new Promise((resolve) => this.takers.push(resolve));
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  async leave() {
    this.socket.close(1000);
    assert.equal(await this.closed, 1000);
  }
}

const connect = (...ids) => Promise.all(ids.map((id) => Agent.connect(id)));
const leave = (...agents) => Promise.all(agents.map((agent) => agent.leave()));

const scenarios = {
  async register_and_connect() {
    const [ann] = await connect('ann-1');
    await ann.leave();
    const byQuery = new WebSocket(`ws${tls}://${nextNode()}/arc?token=${ann.token}`);
    const [welcome] = await once(byQuery, 'message');
    assert.equal(JSON.parse(welcome).type, 'welcome');
    byQuery.close();
    const refused = new WebSocket(`ws${tls}://${nextNode()}/arc?token=tok_bad`);
    const [, answer] = await once(refused, 'unexpected-response');
    assert.equal(answer.statusCode, 401);
    assert.equal(JSON.parse(Buffer.concat(await answer.toArray())).error, 'unauthorized');
  },

  async direct_and_broadcast() {
    const [ann, bob, cid] = await connect('ann-1', 'bob-1', 'cid-1');
    ann.send({ to: ['bob-1'], type: 'greeting', ref: 'r1', payload: { text: 'hällo 😀' }, x: [1] });
    const message = await bob.receive();
    assert.equal(message.from, 'ann-1');
    assert.deepEqual(message.to, ['bob-1']);
    assert.deepEqual([message.type, message.ref, message.x], ['greeting', 'r1', [1]]);
    assert.deepEqual(message.payload, { text: 'hällo 😀' });
    bob.send({ to: ['*'], payload: 'to all' });
    for (const agent of [ann, cid]) assert.equal((await agent.receive()).payload, 'to all');
    ann.send({ to: ['ann-1', 'cid-1'], payload: 'us' });
    for (const agent of [ann, cid]) assert.equal((await agent.receive()).payload, 'us');
    await leave(ann, bob, cid);
  },

  async fragments_binary_and_ping() {
    const [ann, bob] = await connect('ann-1', 'bob-1');
    const bytes = Buffer.from(JSON.stringify({ to: ['bob-1'], payload: '€uro' }));
    const cut = bytes.indexOf('€') + 1;
    for (const binary of [false, true]) {
      const between = once(ann.socket, 'pong');
      ann.socket.send(bytes.subarray(0, cut), { binary, fin: false });
      ann.socket.ping('among the fragments');
      ann.socket.send(bytes.subarray(cut, cut + 1), { binary, fin: false });
      ann.socket.send(bytes.subarray(cut + 1), { binary, fin: true });
      assert.equal((await bob.receive()).payload, '€uro');
      assert.equal((await between)[0].toString(), 'among the fragments');
    }
    const pong = once(ann.socket, 'pong');
    ann.socket.ping('anybody there?');
    assert.equal((await pong)[0].toString(), 'anybody there?');
    ann.socket.send(bytes);
    assert.equal((await bob.receive()).payload, '€uro');
    await leave(ann, bob);
  },

  async takeover() {
    const [old, bob] = await connect('ann-1', 'bob-1');
    const fresh = await Agent.connect('ann-1', old.token);
    assert.equal(await old.closed, 4009);
    bob.send({ to: ['ann-1'], payload: 'to the new one' });
    assert.equal((await fresh.receive()).payload, 'to the new one');
    await leave(fresh, bob);
  },

  async order() {
    const [ann, bob] = await connect('ann-1', 'bob-1');
    const [count, window] = [10_000, 256];
    let sent = 0;
    for (let n = 0; n < count; n += 1) {
      // The reader sets the pace: never more than a window under way.
      while (sent < Math.min(count, n + window)) {
        ann.send({ to: sent % 2 ? ['bob-1'] : ['*'], payload: sent });
        sent += 1;
      }
      assert.equal((await bob.receive()).payload, n);
    }
    await leave(ann, bob);
  },

  async errors() {
    const [ann] = await connect('ann-1');
    const rows = [
      ['no json', 'invalid_message'],
      ['{"to": ["bob-1"]}', 'invalid_message'],
      ['{"to": ["relay"], "type": "dance"}', 'unknown_command'],
    ];
    for (const [text, code] of rows) {
      ann.socket.send(text);
      const error = await ann.receive();
      assert.deepEqual([error.type, error.payload.code], ['error', code]);
    }
    ann.socket.send('x'.repeat(70_000));
    assert.equal((await ann.receive()).payload.code, 'message_too_large');
    assert.equal(await ann.closed, 1009);
  },
};

scenarios[scenario]().then(
  () => console.log('ok'),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
