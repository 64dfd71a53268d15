"""SPDY frames: what both ends agree on, every split of the bytes, every broken frame."""

import base64
import contextlib
import hashlib
import struct
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.local.apiserver import spdy
from kaos.local.apiserver.spdy_headers import DICTIONARY, ProtocolError

# What kubectl 1.37 sent for one forwarded connection: SYN_STREAM of the error stream,
# its FIN, SYN_STREAM of the data stream, data, FIN. (Recorded from its WebSocket.)
KUBECTL_FRAMES = base64.b64decode(
    "gAMAAQAAAEAAAAABAAAAAAAAePnjxqfCAiU6cDorKUpNzIUWJaypoICGFMtFoCTMamhhaWnJwMDAWQSJx0xQ+mY0AAAA"
    "AP//AAAAAQEAAACAAwABAAAAGAAAAAMAAAAAAADCqhtUECUSoRkAAAD//wAAAAMAAAAFaGVsbG8AAAADAQAAAA=="
)


def control(kind: int, payload: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def syn_stream() -> bytes:
    peer = spdy.Connection(client=True)
    peer.open_stream({})
    return peer.bytes_to_send()


def test_dictionary_is_the_protocols() -> None:
    assert len(DICTIONARY) == 1423
    digest = hashlib.sha256(DICTIONARY).hexdigest()
    assert digest == "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"


def test_frames_recorded_from_kubectl_are_understood() -> None:
    events = spdy.Connection().receive(KUBECTL_FRAMES)
    common = {"port": "18999", "requestid": "0"}
    assert events == [
        spdy.StreamOpened(1, {"streamtype": "error", **common}),
        spdy.DataReceived(1, b"", fin=True),
        spdy.StreamOpened(3, {"streamtype": "data", **common}),
        spdy.DataReceived(3, b"hello"),
        spdy.DataReceived(3, b"", fin=True),
    ]


def test_both_ends_agree() -> None:
    client, server = spdy.Connection(client=True), spdy.Connection()
    stream = client.open_stream({"streamType": "data", "port": "80"})
    client.send_data(stream, b"hello", fin=True)
    assert server.receive(client.bytes_to_send()) == [
        spdy.StreamOpened(1, {"streamtype": "data", "port": "80"}),
        spdy.DataReceived(1, b"hello"),
        spdy.DataReceived(1, b"", fin=True),
    ]
    assert client.open_streams == 1

    server.reply(stream, {"ok": "yes"})
    server.send_data(stream, b"bye")
    server.send_data(stream, b"", fin=True)
    assert client.receive(server.bytes_to_send()) == [
        spdy.ReplyReceived(1, {"ok": "yes"}),
        spdy.DataReceived(1, b"bye"),
        spdy.DataReceived(1, b"", fin=True),
    ]
    assert (client.open_streams, server.open_streams) == (0, 0)


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """The bytes of a random client."""
    client = spdy.Connection(client=True)
    streams: list[int] = []
    for _ in range(draw(st.integers(1, 12))):
        action = draw(st.sampled_from(["open", "data", "fin", "reset", "ping", "settings", "away"]))
        stream = draw(st.sampled_from(streams)) if streams else 0
        match action:
            case "open":
                names = st.text("abc-:", min_size=1, max_size=8)
                texts = st.text(st.characters(codec="latin-1"), max_size=30)
                headers = draw(st.dictionaries(names, texts, max_size=4))
                streams.append(client.open_stream(headers, fin=draw(st.booleans())))
            case "data":
                client.send_data(stream, draw(st.binary(max_size=300)))
            case "fin":
                client.send_data(stream, b"", fin=True)
            case "reset":
                client.reset(stream)
            case "ping":
                client.ping()
            case "settings":
                client._out += control(spdy.FrameType.SETTINGS, struct.pack(">III", 1, 4, 100))
            case _:
                client.go_away()
    return client.bytes_to_send()


@given(conversations(), st.data())
def test_any_split_of_the_bytes_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    whole = spdy.Connection()
    expected = whole.receive(stream)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    edges = [0, *sorted(cuts), len(stream)]
    pieces = spdy.Connection()
    events = [e for start, end in pairwise(edges) for e in pieces.receive(stream[start:end])]
    assert events == expected
    assert pieces.bytes_to_send() == whole.bytes_to_send()


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(noise: bytes) -> None:
    for kind in spdy.FrameType:
        with contextlib.suppress(ProtocolError):
            spdy.Connection().receive(control(kind, noise) + noise)


def test_ping_is_answered_and_its_own_answer_is_not() -> None:
    client, server = spdy.Connection(client=True), spdy.Connection()
    number = client.ping()
    assert server.receive(client.bytes_to_send()) == [spdy.PingReceived(number, is_answer=False)]
    assert client.receive(server.bytes_to_send()) == [spdy.PingReceived(number, is_answer=True)]
    assert client.pending == 0


def test_data_that_was_on_its_way_when_the_stream_was_reset_is_dropped() -> None:
    client, server = spdy.Connection(client=True), spdy.Connection()
    stream = client.open_stream({})
    server.receive(client.bytes_to_send())
    server.reset(stream)
    client.send_data(stream, b"late")
    assert server.receive(client.bytes_to_send()) == []
    (event,) = client.receive(server.bytes_to_send())
    assert event == spdy.StreamReset(stream, spdy.ResetStatus.CANCEL)
    client.send_data(stream, b"nobody")
    assert client.pending == 0


def test_refused_stream_does_not_spoil_the_header_context_of_later_ones() -> None:
    client, server = spdy.Connection(client=True), spdy.Connection(max_streams=1)
    first = client.open_stream({"a": "1"})
    second = client.open_stream({"b": "refused"})
    assert len(server.receive(client.bytes_to_send())) == 1
    assert client.receive(server.bytes_to_send()) == [
        spdy.StreamReset(second, spdy.ResetStatus.REFUSED_STREAM)
    ]
    client.reset(first)
    third = client.open_stream({"b": "refused"})
    events = server.receive(client.bytes_to_send())
    assert events[-1] == spdy.StreamOpened(third, {"b": "refused"})


def test_unknown_control_frames_are_ignored() -> None:
    assert spdy.Connection().receive(control(77, b"whatever")) == []


def test_window_update_settings_and_goaway_are_told() -> None:
    frames = (
        control(spdy.FrameType.WINDOW_UPDATE, struct.pack(">II", 1, 65536))
        + control(spdy.FrameType.SETTINGS, struct.pack(">III", 1, 0x01000004, 100))
        + control(spdy.FrameType.GOAWAY, struct.pack(">II", 5, 0))
    )
    assert spdy.Connection().receive(frames) == [
        spdy.WindowUpdated(1, 65536),
        spdy.SettingsReceived({4: 100}),
        spdy.GoneAway(5, spdy.GoAwayStatus.OK),
    ]


def bomb() -> bytes:
    return spdy.Connection(client=True, max_headers=1 << 30)._headers.pack({"x": "0" * 1_000_000})


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (lambda: control(1, b"", version=2), "version 2"),
        (lambda: struct.pack(">II", 1, 2 << 20), "a frame of"),
        (lambda: struct.pack(">II", 7, 1) + b"x", "never opened"),
        (lambda: control(spdy.FrameType.PING, b"12"), "PING frame is too short"),
        (lambda: control(spdy.FrameType.SETTINGS, struct.pack(">I", 9)), "SETTINGS"),
        (lambda: syn_stream() + control(1, b"\0\0\0\1" + bytes(6)), "without a count"),
        (lambda: control(2, b"\0\0\0\1not zlib"), "cannot be unpacked"),
        (lambda: control(2, b"\0\0\0\1" + bomb()), "longer than"),
    ],
)
def test_what_breaks_the_protocol_is_said(frames: Callable[[], bytes], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        spdy.Connection().receive(frames())


def test_a_stream_number_must_be_odd_and_grow() -> None:
    client, server = spdy.Connection(client=True), spdy.Connection()
    client.open_stream({})
    server.receive(client.bytes_to_send())
    client._next_local = 1
    client.open_stream({})
    with pytest.raises(ProtocolError, match="stream number 1 after 1"):
        server.receive(client.bytes_to_send())
    with pytest.raises(ProtocolError, match="stream number 1 after 0"):
        spdy.Connection(client=True).receive(syn_stream())
