# SPDX-License-Identifier: GPL-3.0-or-later
"""WebSocket framing against the examples of RFC 6455 and against itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client import frames
from tests.client.frames import Decoder, Frame


def test_accept_is_the_one_of_the_rfc():
    assert frames.accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_masked_hello_is_the_one_of_the_rfc():
    assert frames.encode(frames.TEXT, b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("818537fa213d7f9f4d5158")


def test_server_frames_of_the_rfc():
    received = Decoder().feed(bytes.fromhex("810548656c6c6f890548656c6c6f"))
    assert received == [Frame(frames.TEXT, b"Hello"), Frame(frames.PING, b"Hello")]


def test_fragments_are_reported_as_not_final():
    received = Decoder().feed(bytes.fromhex("010348656c80026c6f"))
    assert received == [Frame(frames.TEXT, b"Hel", final=False), Frame(0, b"lo")]


@pytest.mark.parametrize(("payload", "code"), [(b"", 1005), (b"\x03\xe9", 1001), (b"\x03\xe8bye", 1000)])
def test_close_code(payload, code):
    assert Frame(frames.CLOSE, payload).close_code == code


@pytest.mark.parametrize(("size", "head"), [(125, 2), (126, 4), (65535, 4), (65536, 10)])
def test_length_takes_the_shortest_form(size, head):
    assert len(frames.encode(frames.BINARY, bytes(size))) == head + 4 + size


@given(st.lists(st.binary(max_size=300), max_size=4), st.lists(st.integers(1, 40), max_size=60))
def test_decoder_does_not_care_how_bytes_arrive(payloads, cuts):
    data = b"".join(frames.encode(frames.BINARY, payload) for payload in payloads)
    decoder, received = Decoder(), []
    for cut in cuts:
        received += decoder.feed(data[:cut])
        data = data[cut:]
    received += decoder.feed(data)
    assert [frame.payload for frame in received] == payloads
