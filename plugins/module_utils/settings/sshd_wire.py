# SPDX-License-Identifier: GPL-3.0-or-later
"""The beginning of an SSH connection: what a server really offers (RFC 4253, sections 4.2 and 7.1)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

KEXINIT = 20
LARGEST = 35000
"""Bytes; every implementation must take packets of this size (RFC 4253, section 6.1)."""
SIGNALS = {"kex-strict-s-v00@openssh.com", "ext-info-s"}
"""Not algorithms, although they stand in the list."""


@dataclass(frozen=True)
class Offer:
    """Names a server offers, in its order."""

    version: str
    kex: tuple[str, ...]
    host_keys: tuple[str, ...]
    ciphers: tuple[str, ...]
    macs: tuple[str, ...]


def ask(address: str, port: int, timeout: float = 5.0) -> Offer:
    """Greet the server at `address` and read its offer; raises OSError when none comes (timeout in seconds)."""
    with socket.create_connection((address, port), timeout) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"SSH-2.0-slipway\r\n")
        for _line in range(50):
            line = stream.readline(512)
            if line.startswith(b"SSH-") or not line:
                break
        if not line.startswith(b"SSH-2.0"):
            raise ConnectionError(f"port {port} of {address} does not speak SSH")
        head = stream.read(5)
        if len(head) < 5:
            raise ConnectionError(f"sshd at port {port} of {address} closed the connection")
        length, padding = struct.unpack(">IB", head)
        if not 0 < length <= LARGEST:
            raise ConnectionError(f"port {port} of {address} does not speak SSH")
        return parse(line.decode("ascii", "replace").strip(), stream.read(length - 1)[: length - 1 - padding])


def parse(version: str, payload: bytes) -> Offer:
    """The name lists of a KEXINIT; raises ConnectionError when `payload` is something else."""
    if not payload or payload[0] != KEXINIT:
        raise ConnectionError("the server did not begin with its list of algorithms")
    lists = []
    position = 17
    for _number in range(6):
        (length,) = struct.unpack_from(">I", payload, position)
        names = payload[position + 4 : position + 4 + length].decode("ascii", "replace")
        lists.append(tuple(name for name in names.split(",") if name and name not in SIGNALS))
        position += 4 + length
    return Offer(version, lists[0], lists[1], lists[2], lists[4])
