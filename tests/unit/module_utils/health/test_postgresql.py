# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import socket
import struct
from typing import Callable

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import postgresql, probes
from ansible_collections.slipway.server.plugins.module_utils.health.model import ProbeResult
from ansible_collections.slipway.server.plugins.module_utils.health.probes import BadTarget, ProbeOptions

from tests.unit.module_utils.health.servers import Talk, says, serving, take

READY = b"Z\0\0\0\5I"
PASSED = b"R\0\0\0\x08\0\0\0\0"
URL = "postgresql://shop@127.0.0.1:%d/shop"


def message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!I", len(content) + 4) + content


def error(code: str, text: str = "no") -> bytes:
    return message(b"E", f"SFATAL\0C{code}\0M{text}\0\0".encode())


ROW = message(b"T", b"\0\1one\0") + message(b"D", b"\0\1\0\0\0\1" + b"1") + message(b"C", b"SELECT 1\0") + READY


def hear(client: socket.socket, kind: bytes) -> bytes:
    assert take(client, 1) == kind
    return take(client, struct.unpack("!I", take(client, 4))[0] - 4)


def server(*steps: Callable[[socket.socket], None], tls: bytes = b"N") -> Talk:
    def talk(client: socket.socket) -> None:
        assert take(client, 8) == struct.pack("!II", 8, 80877103)
        client.sendall(tls)
        start = take(client, struct.unpack("!I", take(client, 4))[0] - 4)
        assert start.startswith(b"\0\3\0\0user\0shop\0database\0shop\0")
        for step in steps:
            step(client)

    return talk


def send(data: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(data)


def answer_query(client: socket.socket) -> None:
    assert hear(client, b"Q") == b"SELECT 1\0"
    client.sendall(ROW)


def look(talk: Talk, password: str = "", url: str = URL, timeout: float = 20.0) -> ProbeResult:
    with serving(talk) as port:
        return probes.make("postgresql", url % port, ProbeOptions(timeout=timeout, password=password)).look()


def test_a_trusted_session() -> None:
    said = message(b"N", b"SNOTICE\0\0") + PASSED + message(b"S", b"server_version\x0017\0") + message(b"K", b"\0" * 8) + READY
    result = look(server(send(said), answer_query))
    assert (result.ok, result.detail) == (True, "SELECT 1 answered")


def scram(password: str, lie: bool = False) -> Callable[[socket.socket], None]:
    """The server's side of RFC 5802."""

    def talk(client: socket.socket) -> None:
        client.sendall(message(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
        first = hear(client, b"p")
        assert first.startswith(b"SCRAM-SHA-256\0")
        bare = first.split(b"n,,", 1)[1].decode()
        nonce = bare.split("r=")[1] + "server"
        challenge = f"r={nonce},s={base64.b64encode(b'salt').decode()},i=4096"
        client.sendall(message(b"R", struct.pack("!I", 11) + challenge.encode()))
        final = hear(client, b"p").decode()
        without, _comma, proof = final.rpartition(",p=")
        wanted, signature = postgresql.scram_proof(password, b"salt", 4096, f"{bare},{challenge},{without}")
        if proof != wanted:
            client.sendall(error("28P01", 'password authentication failed for user "shop"'))
            return
        client.sendall(message(b"R", struct.pack("!I", 12) + f"v={'bGll' if lie else signature}".encode()) + PASSED + READY)

    return talk


def test_scram() -> None:
    assert look(server(scram("secret"), answer_query), "secret").detail == "SELECT 1 answered"
    assert look(server(scram("secret")), "other").detail == 'FATAL: password authentication failed for user "shop" (28P01)'
    assert "does not know the password" in look(server(scram("secret", lie=True)), "secret").detail


def test_scram_proof_of_the_standard() -> None:
    """RFC 7677, section 3."""
    text = (
        "n=user,r=rOprNGfwEbeRWgbNEkqO,"
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof, signature = postgresql.scram_proof("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096, text)
    assert proof == "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert signature == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_md5() -> None:
    def check(client: socket.socket) -> None:
        client.sendall(message(b"R", struct.pack("!I", 5) + b"salt"))
        assert hear(client, b"p") == b"md5165d9b22a1779e14fda8b4328114d9fa\0"
        client.sendall(PASSED + READY)

    assert postgresql.md5_answer("shop", "secret", b"salt") == b"md5165d9b22a1779e14fda8b4328114d9fa"
    assert look(server(check, answer_query), "secret").ok


@pytest.mark.parametrize(
    ("said", "ok", "detail"),
    [
        (error("57P03", "the database system is starting up"), False, "the database system is starting up (57P03)"),
        (error("53300", "too many clients"), False, "too many clients (53300)"),
        (error("28000", "no pg_hba.conf entry"), True, "but not this session, so no query was tried"),
        (message(b"R", struct.pack("!I", 5) + b"salt"), True, "asks for a password and none was given"),
        (message(b"R", struct.pack("!I", 7)), False, "authentication of kind 7"),
        (b"HTTP/1.1 400 Bad Request\r\n", False, "no PostgreSQL answer"),
        (message(b"Z", b"I"), False, "no PostgreSQL answer to the start"),
        (b"R\x7f\xff\xff\xff\0\0\0\0", False, "no PostgreSQL answer"),
        (b"R\0\0", False, "closed after 3 of 5 bytes"),
    ],
)
def test_without_a_password(said: bytes, ok: bool, detail: str) -> None:
    result = look(server(send(said)))
    assert (result.ok, detail in result.detail) == (ok, True), result.detail


def test_a_session_that_does_not_answer() -> None:
    assert "SELECT 1 was answered by" in look(server(send(PASSED + READY), send(READY))).detail
    dead = server(send(PASSED + READY), send(error("57P01", "terminating connection")))
    assert look(dead).detail == "FATAL: terminating connection (57P01)"


def test_tls() -> None:
    assert "sslmode is require" in look(says(b"N"), url=URL + "?sslmode=require").detail
    assert "to the request for TLS: b'H'" in look(says(b"HTTP")).detail
    assert look(says(b"S", wait=True), timeout=0.3).detail == "no complete answer within 0.3 s"


def test_no_password_in_clear() -> None:
    with serving(server(send(message(b"R", struct.pack("!I", 3))))) as port:
        there = postgresql.Place("127.1", port)
        result = postgresql.PostgresqlProbe(there, "shop", "shop", "secret").look()
    assert result.detail == "the server wants the password in clear and has no TLS: not sent"


def test_targets() -> None:
    made = probes.make("postgresql", "postgresql://u:hidden@db.example/shop", ProbeOptions())
    assert made.name == "postgresql://db.example:5432/shop"
    assert "hidden" not in repr(made)
    local = probes.make("postgresql", "postgresql://u@/shop?host=/run/postgresql", ProbeOptions())
    assert local.name == "postgresql:///run/postgresql/.s.PGSQL.5432/shop"
    for bad in ("db.example", "postgresql://db.example/shop", "postgresql://u@db.example", "postgresql://u@db/x?sslmode=maybe"):
        with pytest.raises(BadTarget):
            probes.make("postgresql", bad, ProbeOptions())
