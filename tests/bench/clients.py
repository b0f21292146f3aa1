# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of a pooler, all connected at once: each logs in with SCRAM, all wait for the last one, then each asks SELECT 1.

Runs on a host with Python's standard library alone, in one process. The password comes by standard input. Prints JSON: how many
were connected at once and answered, and the seconds for both. The password is salted once for all, so that the time is the
pooler's; a real client takes about 3 ms of its own for it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import os
import resource
import struct
import sys
import time
from functools import cache

AT_ONCE = 64
"""Logins under way at the same time: fewer than the pooler's listen_backlog, which is 128."""
PROTOCOL = 196608


@cache
def salted(password: str, salt: bytes, rounds: int) -> bytes:
    """SaltedPassword of RFC 5802."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)


def digest(key: bytes, text: bytes) -> bytes:
    """HMAC of RFC 5802."""
    return hmac.new(key, text, hashlib.sha256).digest()


def message(kind: bytes, body: bytes) -> bytes:
    """A message with its length; the first one has no kind."""
    return kind + struct.pack("!I", len(body) + 4) + body


class Client:
    """One session."""

    def __init__(self, options: argparse.Namespace, password: str) -> None:
        self.options = options
        self.password = password

    async def take(self) -> tuple[bytes, bytes]:
        """The next message; raises what the other side complains of."""
        kind = await self.reader.readexactly(1)
        (length,) = struct.unpack("!I", await self.reader.readexactly(4))
        body = await self.reader.readexactly(length - 4)
        if kind == b"E":
            raise RuntimeError(body.decode("utf-8", "replace").replace("\0", " ").strip())
        return kind, body

    async def login(self) -> None:
        """Connect and prove the password; returns when the session is ready."""
        self.reader, self.writer = await asyncio.open_connection(self.options.host, self.options.port, limit=4096)
        words = f"user\0{self.options.user}\0database\0{self.options.database}\0\0"
        self.writer.write(message(b"", struct.pack("!I", PROTOCOL) + words.encode()))
        first, nonce = "", base64.b64encode(os.urandom(18)).decode()
        while True:
            kind, body = await self.take()
            if kind == b"Z":
                return
            if kind != b"R":
                continue
            (step,) = struct.unpack("!I", body[:4])
            if step == 10:
                first = f"n=,r={nonce}"
                initial = f"n,,{first}".encode()
                body = b"SCRAM-SHA-256\0" + struct.pack("!I", len(initial)) + initial
                self.writer.write(message(b"p", body))
            elif step == 11:
                self.writer.write(message(b"p", self.proof(first, body[4:].decode())))
            elif step not in (0, 12):
                raise RuntimeError(f"authentication {step} is not SCRAM")

    def proof(self, first: str, challenge: str) -> bytes:
        """The client's final message."""
        given = dict(part.split("=", 1) for part in challenge.split(","))
        key = salted(self.password, base64.b64decode(given["s"]), int(given["i"]))
        final = f"c=biws,r={given['r']}"
        client = digest(key, b"Client Key")
        signature = digest(hashlib.sha256(client).digest(), f"{first},{challenge},{final}".encode())
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client, signature))).decode()
        return f"{final},p={proof}".encode()

    async def ask(self) -> bool:
        """Whether SELECT 1 is answered by 1."""
        self.writer.write(message(b"Q", b"SELECT 1\0"))
        found = False
        while True:
            kind, body = await self.take()
            found = found or (kind == b"D" and body.endswith(b"\0\0\0\x011"))
            if kind == b"Z":
                return found


async def run(options: argparse.Namespace, password: str) -> dict[str, object]:
    """All clients; none leaves before the last one was answered."""
    slots, errors = asyncio.Semaphore(AT_ONCE), []
    clients = [Client(options, password) for _number in range(options.count)]

    async def login(client: Client) -> bool:
        async with slots:
            try:
                await asyncio.wait_for(client.login(), options.timeout)
            except (OSError, RuntimeError, EOFError, asyncio.TimeoutError) as error:
                errors.append(str(error) or type(error).__name__)
                return False
            return True

    async def ask(client: Client) -> bool:
        try:
            return await asyncio.wait_for(client.ask(), options.timeout)
        except (OSError, RuntimeError, EOFError, asyncio.TimeoutError) as error:
            errors.append(str(error) or type(error).__name__)
            return False

    started = time.monotonic()
    ready = [client for client, well in zip(clients, await asyncio.gather(*map(login, clients))) if well]
    connected = time.monotonic()
    answers = await asyncio.gather(*map(ask, ready))
    ended = time.monotonic()
    for client in ready:
        client.writer.close()
    return {
        "connected": len(ready),
        "answered": sum(answers),
        "connect_seconds": round(connected - started, 2),
        "answer_seconds": round(ended - connected, 2),
        "errors": sorted(set(errors))[:5],
    }


def main() -> int:
    """Exit status 0 when all were connected at once and answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6432)
    parser.add_argument("--user", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one login, or for one answer")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = asyncio.run(run(options, sys.stdin.readline().rstrip("\n")))
    print(json.dumps(found))
    return 0 if found["answered"] == options.count else 1


if __name__ == "__main__":
    sys.exit(main())
