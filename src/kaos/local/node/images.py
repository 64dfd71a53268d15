"""Which container images this node can run, and as what.

There are no container images on a laptop without a container runtime. The node knows a short
table instead: the KAOS image is this very package and interpreter; the Ollama image is the
`ollama` program of the machine, or a stand-in with the same commands.

Guarantees: an image that is not in the table is never guessed at (not even when its command
happens to exist on this machine: it would be another program than the manifest means); the error
names the image and the ways out. Tags are not compared: the node has one version of each.
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

DEFAULT_OLLAMA_REPOSITORY = "ollama/ollama"
DEFAULT_KAOS_REPOSITORY = "kaos/kaos"
KAOS_REPOSITORIES = (DEFAULT_KAOS_REPOSITORY, "kaos/kaos-node", "kaos/kaos-litellm")
"""Ours, also with Node.js and with LiteLLM: here both are what this machine has."""
OLLAMA_PORT = 11434

_PYTHON = re.compile(r"python(3(\.\d+)?)?")


class ImageNotRunnable(Exception):  # noqa: N818 - the reason that users see in a pod's status
    """The node does not know how to run an image; the message names it and the ways out."""


@dataclass(frozen=True, slots=True)
class Image:
    """How an image is run here."""

    image_id: str
    """What truly runs, for a pod's status."""
    programs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Programs of the image by name, and what stands for them here."""
    entrypoint: Sequence[str] = ()
    default_args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that the image sets."""
    env_if_mounted: Mapping[str, str] = field(default_factory=dict)
    """Paths that the image sets, which mean something here only when a volume is mounted there."""
    own_env: Mapping[str, str] = field(default_factory=dict)
    """Variables of this machine's program that win over the container's."""
    ports: Sequence[int] = ()
    """Ports that the image's program listens on without being told so."""

    def argv(self, command: Sequence[str], args: Sequence[str]) -> list[str]:
        """The command line for a container's `command` and `args`.

        Raises:
            ImageNotRunnable: Neither the image nor the container names a program.
        """
        words = [*command, *args] if command else [*self.entrypoint, *(args or self.default_args)]
        if not words:
            raise ImageNotRunnable(
                f"no command: {self.image_id} has no entry point; set `command` in the container"
            )
        name = PurePosixPath(words[0]).name
        if name in self.programs:
            return [*self.programs[name], *words[1:]]
        if _PYTHON.fullmatch(name):
            return [sys.executable, *words[1:]]
        return words


class ImageTable:
    """The images of a node, by repository."""

    def __init__(self, images: Mapping[str, Image]) -> None:
        self._images = {repository(name): image for name, image in images.items()}

    @classmethod
    def default(cls, *, version: str, environ: Mapping[str, str]) -> "ImageTable":
        """The table of the embedded cluster: KAOS and Ollama.

        Args:
            version: The version of KAOS, for the image id.
            environ: Where `KAOS_IMAGE`, `KAOS_OLLAMA_IMAGE` and `PATH` are read from.
        """
        kaos = Image(
            image_id=f"kaos://this-interpreter@{version}",
            programs={"kaos": (sys.executable, "-m", "kaos.cli.main")},
            env={"PYTHONUNBUFFERED": "1"},  # a log line must not wait for the next one
        )
        program = shutil.which("ollama", path=environ.get("PATH"))
        stand_in = (sys.executable, "-m", "kaos.local.ollama")
        ollama = Image(
            image_id=f"kaos://{program}" if program else f"kaos://ollama-stand-in@{version}",
            programs={"ollama": (program,) if program else stand_in},
            entrypoint=("ollama",),
            default_args=("serve",),
            env={"OLLAMA_HOST": f"0.0.0.0:{OLLAMA_PORT}"},
            env_if_mounted={"OLLAMA_MODELS": "/root/.ollama/models"},
            own_env=_ollama_store(environ) if program else {},
            ports=(OLLAMA_PORT,),
        )
        return cls(
            {
                **dict.fromkeys(KAOS_REPOSITORIES, kaos),
                environ.get("KAOS_IMAGE") or DEFAULT_KAOS_REPOSITORY: kaos,
                DEFAULT_OLLAMA_REPOSITORY: ollama,
                environ.get("KAOS_OLLAMA_IMAGE") or DEFAULT_OLLAMA_REPOSITORY: ollama,
            }
        )

    def __getitem__(self, name: str) -> Image:
        """Look an image up.

        Raises:
            ImageNotRunnable: It is not in the table.
        """
        image = self._images.get(repository(name))
        if image is None:
            known = ", ".join(sorted(self._images))
            raise ImageNotRunnable(
                f'image "{name}" cannot be run by the embedded cluster, which has no container '
                f"runtime: it runs only {known}. Use a real cluster for it, or, if "
                f"it is a build of KAOS, start the cluster with KAOS_IMAGE={name}"
            )
        return image


def _ollama_store(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the user's own `ollama` keeps its models: pulled once, they are there for all pods."""
    home = environ.get("HOME") or str(Path.home())
    return {
        "HOME": home,
        "OLLAMA_MODELS": environ.get("OLLAMA_MODELS") or f"{home}/.ollama/models",
    }


def repository(name: str) -> str:
    """An image's name without tag, digest and the default registry's prefix."""
    name = name.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    name = head + slash + tail.partition(":")[0]
    for prefix in ("docker.io/library/", "docker.io/"):
        name = name.removeprefix(prefix)
    return name
