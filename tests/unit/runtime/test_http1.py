"""Framing of answers, in whatever pieces they come."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.runtime.http1 import BadAnswer, Connection, Parser

OK = b"HTTP/1.1 200 OK\r\n"


def chunked(*parts: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    coded = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts if part)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n" + trailers + b"\r\n"


def sized(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def parse(message: bytes, cuts: list[int]) -> tuple[Parser, bytes]:
    parser, body, start = Parser(), b"", 0
    for cut in [*sorted(cuts), len(message)]:
        if piece := message[start:cut]:
            body += parser.feed(piece)
        start = max(start, cut)
    return parser, body


bodies = st.lists(st.binary(max_size=40) | st.just(b"\r\n0\r\n\r\n"), max_size=5)
cuts = st.lists(st.integers(0, 300), max_size=12)


@given(
    bodies, cuts, st.sampled_from([b"", b";a=b", b' ; a="b"']), st.sampled_from([b"", b"A: b\r\n"])
)
def test_chunks_are_put_together_however_they_are_cut(
    parts: list[bytes], cuts: list[int], extension: bytes, trailers: bytes
) -> None:
    parser, body = parse(chunked(*parts, extension=extension, trailers=trailers), cuts)
    assert (parser.status, body, parser.done, parser.reusable) == (200, b"".join(parts), True, True)


@given(st.binary(max_size=60), cuts)
def test_a_body_of_known_length_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    parser, found = parse(sized(body), cuts)
    assert (found, parser.done, parser.reusable) == (body, True, True)


@given(bodies, st.data())
def test_an_answer_that_is_cut_short_is_never_complete(
    parts: list[bytes], data: st.DataObject
) -> None:
    message = chunked(*parts)
    parser, _ = parse(message[: data.draw(st.integers(0, len(message) - 1))], [])
    assert not parser.done
    with pytest.raises(BadAnswer):
        parser.end()


@given(st.binary(max_size=300), cuts)
def test_whatever_comes_is_an_answer_or_is_refused(noise: bytes, cuts: list[int]) -> None:
    for start in (b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"):
        with contextlib.suppress(BadAnswer):
            parse(start + noise, cuts)


def test_until_the_close() -> None:
    parser, body = parse(OK + b"\r\nsome", [20])
    assert not parser.done
    parser.end()
    assert (body, parser.done, parser.reusable) == (b"some", True, False)


def test_an_interim_answer_is_passed_over() -> None:
    parser, body = parse(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + sized(b"yes"), [30])
    assert (parser.status, body) == (200, b"yes")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_answers_have_no_body(status: bytes) -> None:
    parser, body = parse(b"HTTP/1.1 " + status + b"\r\n\r\n", [])
    assert (body, parser.done, parser.reusable) == (b"", True, True)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200\r\nConnection: Close\r\n", b"HTTP/1.0 200 OK\r\n"])
def test_a_server_that_will_close_is_not_asked_again(head: bytes) -> None:
    parser, _ = parse(head + b"Content-Length: 0\r\n\r\n", [])
    assert parser.done
    assert not parser.reusable


def test_a_tunnel_has_no_body_whatever_its_head_says() -> None:
    parser = Parser(tunnel=True)
    assert parser.feed(OK + b"Content-Length: 7\r\n\r\n") == b""
    assert parser.done


@pytest.mark.parametrize(
    "message",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Folded: a\r\n b\r\n\r\n",
        OK + b"Content-Length : 1\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 1\r\n\r\ntwo",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1_0\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 5000,
        chunked(b"a") + b"more",
        sized(b"") + b"more",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 17),
    ],
)
def test_what_is_no_answer_is_refused(message: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse(message, [])


async def serve(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
) -> tuple[asyncio.Server, Connection]:
    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            answer(reader, writer)
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serving, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    return server, connection


async def test_a_reader_that_is_slow_stops_the_server_and_not_the_memory() -> None:
    size = 64 << 20
    server, connection = await serve(lambda _, writer: writer.write(sized(b"x" * size)))
    async with server:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        await connection.head()
        for _ in range(50):
            await asyncio.sleep(0)
        largest, total = 0, 0
        while chunk := await connection.chunk():
            largest, total = max(largest, len(chunk)), total + len(chunk)
            await asyncio.sleep(0)
        connection.abort()  # from Python 3.12 on, a server waits for its connections
    assert total == size
    assert largest < 2 << 20


async def test_what_came_before_a_break_is_told_before_the_break() -> None:
    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n5\r\nha")
        writer.close()

    server, connection = await serve(answer)
    async with server:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        got: list[bytes] = []

        async def read() -> None:
            while True:
                got.append(await connection.chunk())

        with pytest.raises(BadAnswer, match="closed the connection"):
            await read()
    assert b"".join(got) == b"okha"
    assert not connection.reusable


async def test_a_reset_is_no_end_of_a_body_until_the_close() -> None:
    """Half a log was taken for all of it."""
    writers: list[asyncio.StreamWriter] = []

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\nhalf")
        writers.append(writer)

    server, connection = await serve(answer)
    async with server:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await connection.chunk() == b"half"
        at_once = struct.pack("ii", 1, 0)
        sock = writers[0].get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writers[0].transport.abort()
        with pytest.raises(BadAnswer, match="reset"):
            await connection.body()


async def test_a_connection_that_was_told_what_it_did_not_ask_is_closed() -> None:
    server, connection = await serve(lambda _, writer: writer.write(sized(b"") + sized(b"")))
    async with server:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(BadAnswer, match="more came"):
            await connection.body()
    assert not connection.reusable
