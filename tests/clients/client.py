"""Plays an agent with Python's `websockets`, as any user of it would.

    client.py HOST:PORT[,HOST:PORT…] SCENARIO

Given several nodes of one relay, each registration and each connection is with the next of them.
By TLS if ARC_CA names the PEM file of an authority: no other is trusted then.

Prints "ok" when all went as PROTOCOL.md says; fails with a traceback otherwise.
"""

import asyncio
import itertools
import json
import os
import ssl
import sys
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

NODES = itertools.cycle(sys.argv[1].split(","))
PATIENCE = 25
TRUST = ssl.create_default_context(cafile=os.environ["ARC_CA"]) if "ARC_CA" in os.environ else None
HTTP, WS = ("https", "wss") if TRUST else ("http", "ws")


def register(agent):
    """Registers an agent and returns its token."""
    request = urllib.request.Request(
        f"{HTTP}://{next(NODES)}/register",
        data=json.dumps({"agent_id": agent}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE, context=TRUST) as answer:
        body = json.load(answer)
    assert body["agent_id"] == agent, body
    return body["token"]


async def receive(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))


class Agent:
    """A connected agent: `async with Agent("ann-1") as ann`."""

    def __init__(self, agent, token=None):
        self.id = agent
        self.token = token or register(agent)

    async def __aenter__(self):
        headers = {"Authorization": f"Bearer {self.token}"}
        self.socket = await connect(f"{WS}://{next(NODES)}/arc", ssl=TRUST, additional_headers=headers)
        self.welcome = await receive(self.socket)
        assert self.welcome["type"] == "welcome", self.welcome
        assert self.welcome["to"] == [self.id], self.welcome
        return self

    async def __aexit__(self, *_):
        await self.socket.close()

    async def send(self, **message):
        await self.socket.send(json.dumps(message))

    async def receive(self):
        return await receive(self.socket)


async def register_and_connect():
    async with Agent("ann-1") as ann:
        pass
    assert ann.socket.close_code == 1000, ann.socket.close_code
    async with connect(f"{WS}://{next(NODES)}/arc?token={ann.token}", ssl=TRUST) as socket:
        assert (await receive(socket))["type"] == "welcome"
    try:
        async with connect(f"{WS}://{next(NODES)}/arc?token=tok_bad", ssl=TRUST):
            raise AssertionError("a bad token was accepted")
    except InvalidStatus as refusal:
        assert refusal.response.status_code == 401, refusal
        assert json.loads(refusal.response.body)["error"] == "unauthorized"


async def direct_and_broadcast():
    async with Agent("ann-1") as ann, Agent("bob-1") as bob, Agent("cid-1") as cid:
        await ann.send(to=["bob-1"], type="greeting", ref="r1", payload={"text": "hällo 😀"}, x=[1])
        message = await bob.receive()
        assert message["from"] == "ann-1" and message["to"] == ["bob-1"], message
        assert message["type"] == "greeting" and message["ref"] == "r1", message
        assert message["payload"] == {"text": "hällo 😀"} and message["x"] == [1], message
        await bob.send(to=["*"], payload="to all")
        for agent in (ann, cid):
            assert (await agent.receive())["payload"] == "to all"
        await ann.send(to=["ann-1", "cid-1"], payload="us")
        for agent in (ann, cid):
            assert (await agent.receive())["payload"] == "us"


async def fragments_binary_and_ping():
    async with Agent("ann-1") as ann, Agent("bob-1") as bob:
        text = json.dumps({"to": ["bob-1"], "payload": "€uro"}, ensure_ascii=False)
        await ann.socket.send([text[:7], text[7:20], text[20:]])
        assert (await bob.receive())["payload"] == "€uro"
        await ann.socket.send(text.encode())
        assert (await bob.receive())["payload"] == "€uro"
        await ann.socket.send([text.encode()[:30], text.encode()[30:]])
        assert (await bob.receive())["payload"] == "€uro"
        await asyncio.wait_for(await ann.socket.ping(b"anybody there?"), PATIENCE)
        await ann.send(to=["relay"], type="ping", ref="p")
        pong = await ann.receive()
        assert pong["type"] == "pong" and pong["ref"] == "p", pong


async def takeover():
    async with Agent("ann-1") as old, Agent("bob-1") as bob:
        async with Agent("ann-1", old.token) as new:
            try:
                raise AssertionError(await old.receive())
            except ConnectionClosed as end:
                assert end.rcvd is not None and end.rcvd.code == 4009, end
            await bob.send(to=["ann-1"], payload="to the new one")
            assert (await new.receive())["payload"] == "to the new one"


async def order(count=10_000, window=256):
    async with Agent("ann-1") as ann, Agent("bob-1") as bob:
        room = asyncio.Semaphore(window)

        async def send():
            for n in range(count):
                await room.acquire()
                await ann.send(to=["bob-1"] if n % 2 else ["*"], payload=n)

        async def read():
            for n in range(count):
                message = await bob.receive()
                assert message["payload"] == n, (n, message)
                room.release()

        await asyncio.gather(send(), read())


async def errors():
    async with Agent("ann-1") as ann:
        for text, code in (
            ("no json", "invalid_message"),
            ('{"to": ["bob-1"]}', "invalid_message"),
            ('{"to": ["relay"], "type": "dance"}', "unknown_command"),
        ):
            await ann.socket.send(text)
            error = await ann.receive()
            assert error["type"] == "error" and error["payload"]["code"] == code, error
        await ann.socket.send("x" * 70_000)
        assert (await ann.receive())["payload"]["code"] == "message_too_large"
        try:
            raise AssertionError(await ann.receive())
        except ConnectionClosed as end:
            assert end.rcvd is not None and end.rcvd.code == 1009, end


SCENARIOS = (
    register_and_connect,
    direct_and_broadcast,
    fragments_binary_and_ping,
    takeover,
    order,
    errors,
)
asyncio.run({scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[2]]())
print("ok")
