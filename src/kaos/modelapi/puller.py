"""The puller: the sidecar that keeps a hosted model in Ollama's store.

Guarantees: `/readyz` is 200 only while the model was in the store at the last look, so that a
pod is ready when it can answer; a model that is lost is pulled again; progress is one JSON line
a second at first and more seldom in a long pull (`event="pull"`, `completed`, `total`), for the
controller to read; a pull that fails ends the process, and its last line is one sentence with
the model's name and the registry's words, which the kubelet puts into the pod's status.

Does not: give up on an Ollama that is not there. It is the other container of this pod, whose
own probes and restarts say what is wrong with it; two containers that crash in turn would
hide that.

Overrides (`KAOS_MODEL_OVERRIDES`, `FROM=TO,…`): in place of FROM the model TO is pulled and
copied to the name FROM, so a manifest runs where its model cannot be had.
"""

import asyncio
import time
from collections.abc import Mapping

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kaos.modelapi.names import full_name
from kaos.modelapi.ollama_client import OllamaClient, PullError, Unreachable

LOOK_EVERY = 30.0
RETRY_EVERY = 1.0
PROGRESS_EVERY = 1.0
_SLOWER_AFTER = 30.0  # seconds; after ten minutes it is a line every 20 seconds

log = structlog.get_logger("kaos.modelapi.pull")


class Puller:
    """Keeps one model in the store; `ready` says whether it is there."""

    def __init__(
        self,
        client: OllamaClient,
        model: str,
        *,
        overrides: Mapping[str, str],
        look_every: float = LOOK_EVERY,
        retry_every: float = RETRY_EVERY,
    ) -> None:
        self.model = full_name(model)
        self.ready = False
        self._client = client
        self._source = overrides.get(self.model, self.model)
        self._look_every = look_every
        self._retry_every = retry_every

    async def run(self) -> None:
        """Watch over the model until cancelled.

        Raises:
            PullError: It cannot be had; the message is for people.
        """
        complained = False
        while True:
            try:
                was_ready = self.ready
                self.ready = self.model in await self._client.models()
                complained = False
                if not self.ready:
                    if was_ready:
                        log.warning("the model is gone from the store", model=self.model)
                    await self._pull()
                    continue
                if not was_ready:
                    log.info("model ready", model=self.model)
            except Unreachable as error:
                self.ready = False
                if not complained:
                    log.info("waiting for Ollama", reason=str(error))
                complained = True
            except PullError as error:
                raise PullError(self._sentence(error)) from error
            await asyncio.sleep(self._look_every if self.ready else self._retry_every)

    async def _pull(self) -> None:
        log.info("pull", model=self._source, status="starting")
        began, said, status = time.monotonic(), 0.0, ""
        async for event in self._client.pull(self._source):
            now, words = time.monotonic(), str(event.get("status", ""))
            total, completed = event.get("total"), event.get("completed")
            pause = max(PROGRESS_EVERY, (now - began) / _SLOWER_AFTER)
            if words != status or now - said >= pause or (total and total == completed):
                said = now
                numbers = {"completed": completed or 0, "total": total} if total else {}
                log.info("pull", model=self._source, status=words, **numbers)
            status = words
        if self._source != self.model:
            await self._client.copy(self._source, self.model)
            log.info("model override", model=self.model, served_by=self._source)
        elif self.model not in await self._client.models():
            raise PullError("Ollama said that the pull succeeded, but the store does not list it")

    def _sentence(self, error: PullError) -> str:
        stands_in = f" (in place of {self.model!r})" if self._source != self.model else ""
        return f"model {self._source!r}{stands_in} cannot be pulled: {error}"


def build_app(puller: Puller) -> Starlette:
    """The probes of the sidecar."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if puller.ready:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"model {puller.model} is not in the store\n", status_code=503)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])
