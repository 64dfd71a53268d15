"""Asking agents as users do: the openai client, and load that counts what failed."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai


def client(base_url: str, *, retries: int = 0, key: str = "none") -> openai.OpenAI:
    """An openai client of an agent; without retries, so that a failure is seen."""
    return openai.OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=retries, timeout=120)


def ask(
    base_url: str,
    text: str,
    model: str = "agent",
    *,
    key: str = "none",
    headers: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """One question, one answer."""
    completion = client(base_url, key=key).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        extra_headers=headers,
        timeout=timeout,
    )
    choice = completion.choices[0]
    assert choice.finish_reason == "stop", completion
    assert choice.message.content
    return choice.message.content


def patiently(ask_once: Callable[[float], Any]) -> Any:
    """What a real small model answers. Its answers sometimes do not end: then it is asked again.

    Args:
        ask_once: asks, with a timeout in seconds.
    """
    for _ in range(3):
        with contextlib.suppress(TimeoutError, openai.APITimeoutError):
            return ask_once(60)
    raise AssertionError("three answers did not end within a minute each")


def stream(base_url: str, text: str) -> str:
    """One question, and an answer that comes in pieces and has its end."""
    said, finish = "", None
    for chunk in client(base_url).chat.completions.create(
        model="agent", messages=[{"role": "user", "content": text}], stream=True
    ):
        for choice in chunk.choices:
            said += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert finish == "stop", f"it broke off after {said!r}"
    return said


@dataclass
class Load:
    """What became of the requests of a load."""

    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def wait_for(self, more: int, timeout: float = 60) -> None:
        """Wait until so many more requests have been answered."""
        target, deadline = len(self.answers) + more, time.monotonic() + timeout
        while len(self.answers) < target:
            assert time.monotonic() < deadline, f"no {more} more answers: {self.failures[-3:]}"
            time.sleep(0.05)


@contextlib.contextmanager
def load(
    base_url: str,
    text: str,
    threads: int = 2,
    pause: float = 0.05,
    asks: Callable[[str, str], str] = ask,
) -> Iterator[Load]:
    """Ask again and again during the block."""
    result, stop = Load(), threading.Event()

    def run() -> None:
        while not stop.wait(pause):
            try:
                result.answers.append(asks(base_url, text))
            except Exception as error:  # noqa: BLE001 - whatever it is, a user would have seen it
                result.failures.append(f"{time.strftime('%H:%M:%S')} {error!r}")

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield result
    finally:
        stop.set()
        for worker in workers:
            worker.join(130)
