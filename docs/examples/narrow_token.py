#!/usr/bin/env python3
"""Narrow an arc-relay token offline, for example for a sub-agent.

The token to narrow is taken from ARC_TOKEN; the narrowed one is printed. No key
and no network are needed. See docs/tokens.md.

    pip install biscuit-python==0.4.0
    ARC_TOKEN=tok_... ./narrow_token.py --expires-in 1h --to bob,carol
"""

import argparse
import os
import re
import sys
from datetime import datetime, timedelta, timezone

from biscuit_auth import BlockBuilder, PublicKey, UnverifiedBiscuit

PREFIX = "tok_"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text):
    """90, 90s, 15m, 12h or 7d."""
    match = re.fullmatch(r"([1-9][0-9]*)([smhd]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 90s, 15m, 12h or 7d")
    try:
        return timedelta(seconds=int(match[1]) * SECONDS[match[2] or "s"])
    except OverflowError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is too long") from error


def recipients(text):
    """Agent ids, or * for broadcasts, separated by commas."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    if not names:
        raise argparse.ArgumentTypeError("name at least one recipient")
    return names


def parse_arguments():
    parser = argparse.ArgumentParser(description="Narrow the arc-relay token in ARC_TOKEN.")
    parser.add_argument("--expires-in", type=duration, metavar="TIME",
                        help="good for so long from now: 90s, 15m, 12h, 7d")
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument("--send-only", action="store_true", help="receives nothing")
    direction.add_argument("--receive-only", action="store_true", help="sends nothing")
    parser.add_argument("--to", type=recipients, metavar="ID,ID",
                        help="sends to these agents only; * means broadcasts")
    arguments = parser.parse_args()
    if not any(vars(arguments).values()):
        parser.error("say how to narrow the token")
    if arguments.receive_only and arguments.to:
        parser.error("--receive-only sends to nobody: leave out --to")
    return arguments


def narrowing(arguments):
    """The block to append: checks only, each of which the relay will enforce."""
    block = BlockBuilder()
    if arguments.expires_in:
        end = datetime.now(timezone.utc) + arguments.expires_in
        block.add_code("check if time($t), $t < {end}", {"end": end})
    if arguments.send_only:
        block.add_code('check if operation("send")')
    if arguments.receive_only:
        block.add_code('check if operation("receive")')
    if arguments.to:
        block.add_code('check if operation("receive") or recipient($r), {to}.contains($r)',
                       {"to": arguments.to})
    return block


def narrow(token, block):
    """The token with one more block; the relay takes base64 with and without padding."""
    text = token.removeprefix(PREFIX).rstrip("=")
    biscuit = UnverifiedBiscuit.from_base64(text + "=" * (-len(text) % 4))
    # biscuit-python writes only what it has verified, so the token names its signer's key.
    signer = re.search(r"^signer\(hex:([0-9a-f]{64})\);", biscuit.block_source(0), re.MULTILINE)
    if not signer:
        raise ValueError("it does not name its signer")
    biscuit = biscuit.verify(PublicKey(f"ed25519/{signer[1]}"))
    return PREFIX + biscuit.append(block).to_base64().rstrip("=")


def main():
    arguments = parse_arguments()
    token = os.environ.get("ARC_TOKEN", "").strip()
    if not token.startswith(PREFIX):
        sys.exit("set ARC_TOKEN to the token to narrow; it starts with tok_")
    try:
        print(narrow(token, narrowing(arguments)))
    except Exception as error:  # biscuit's errors share no base class
        sys.exit(f"the token cannot be narrowed: {error}")


if __name__ == "__main__":
    main()
