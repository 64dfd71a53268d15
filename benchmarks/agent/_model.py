"""A model that costs as little as can be: a byte server of pre-serialised answers.

Run: `python _model.py PORT`. What it answers is chosen by the request's text: `stream:N` streams N
chunks; `wait:MS` answers after so many milliseconds; `tool` calls the tool `echo` until a result is
there, `delegate` the peer; else one answer.
"""

import asyncio
import json
import sys

HEAD = {"id": "chatcmpl-b", "object": "chat.completion", "created": 1, "model": "bench"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def whole(message: dict[str, object], finish: str) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    body = json.dumps({**HEAD, "choices": [choice], "usage": USAGE}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    return framed(b"data: " + json.dumps(event).encode() + b"\n\n")


def call(name: str, arguments: dict[str, str]) -> bytes:
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": "c1", "type": "function", "function": function}]
    return whole({"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls")


ANSWER = whole({"role": "assistant", "content": "Hello there."}, "stop")
CALLS = {b"tool": call("echo", {"text": "x"}), b"delegate": call("delegate_to_peer", {"task": "x"})}
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = tuple(chunk({"content": f"word{n} "}) for n in range(2))  # LiteLLM refuses repetition
END = chunk({}, "stop") + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            _, streamed, rest = body.partition(b"stream:")
            if streamed:
                count = int(rest[: rest.index(b'"')])
                writer.write(STREAM + chunk({"role": "assistant", "content": ""}) + CHUNKS[1])
                await writer.drain()
                for number in range(count):
                    writer.write(CHUNKS[number % 2])  # each a write of its own, as fast as can be
                    await writer.drain()
                writer.write(END)
                await writer.drain()
                continue
            _, waited, rest = body.partition(b'"wait:')
            if waited:
                await asyncio.sleep(float(rest[: rest.index(b'"')]) / 1000)
            body = body.replace(b": ", b":")
            asked = b"" if b'"role":"tool"' in body else body
            writer.write(
                next((c for word, c in CALLS.items() if b'"content":"' + word in asked), ANSWER)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
