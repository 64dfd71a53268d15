"""The program, environment and working directory with which a container is started. Pure.

Guarantees one order of precedence for variables, weakest first: what the machine lends, what the
node says about the pod, what the image sets, what the manifest sets. The mark by which orphans are
found (`KAOS_NODE_STATE`) is the one thing that a manifest cannot change.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaos.local.node.environment import (
    Sources,
    Translation,
    command_line,
    container_env,
    inherited,
    translated,
)
from kaos.local.node.images import Image
from kaos.local.node.orphans import STATE_VARIABLE


@dataclass(frozen=True, slots=True)
class Launch:
    """All that is needed to start a process."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path


@dataclass(frozen=True, slots=True)
class NodeVariables:
    """What every container on this node is told."""

    environ: Mapping[str, str]
    node_folder: Path
    service_map: Path
    cluster_domain: str

    def for_pod(self, pod: Mapping[str, Any]) -> dict[str, str]:
        """The environment of a pod's processes before image and manifest have their say."""
        metadata = pod["metadata"]
        env = inherited(self.environ)
        # Programs that were installed beside this interpreter are part of "the image".
        env["PATH"] = ":".join(filter(None, (str(Path(sys.executable).parent), env.get("PATH"))))
        return env | {
            "HOSTNAME": metadata["name"],
            "KAOS_POD_NAME": metadata["name"],
            "KAOS_POD_NAMESPACE": metadata["namespace"],
            "KAOS_SERVICE_MAP": str(self.service_map),
            "KAOS_CLUSTER_DOMAIN": self.cluster_domain,
        }

    def mark(self) -> dict[str, str]:
        """The variable by which a process is known as this node's."""
        return {STATE_VARIABLE: str(self.node_folder)}


def plan_launch(
    container: Mapping[str, Any],
    pod: Mapping[str, Any],
    image: Image,
    sources: Sources,
    translation: Translation,
    *,
    variables: NodeVariables,
    working_folder: Path,
) -> Launch:
    """How a container is started.

    Raises:
        ConfigError: A variable cannot be resolved.
        ImageNotRunnable: There is no program to run.
    """
    mounted = {n: p for n, p in image.env_if_mounted.items() if translation.apply(p) != p}
    image_env = {**image.env, **mounted}
    own = container_env(container, pod, sources, translation=translation, image_env=image_env)
    env = variables.for_pod(pod)
    if (temporary := translation.mounts.get("/tmp")) is not None:  # noqa: S108
        env["TMPDIR"] = str(temporary)
    env = {**env, **translated(own, translation), **image.own_env, **variables.mark()}
    argv = image.argv(
        command_line(container.get("command") or [], own, translation),
        command_line(container.get("args") or [], own, translation),
    )
    cwd = working_folder
    if wanted := container.get("workingDir"):
        folder = Path(translation.apply(str(wanted)))
        cwd = folder if str(folder) != wanted and folder.is_dir() else working_folder
    return Launch(argv, env, cwd)


def exec_argv(command: list[str], image: Image, translation: Translation) -> list[str]:
    """The command line of an exec probe or hook; as in Kubernetes, no $(VAR) is expanded in it.

    Raises:
        ImageNotRunnable: The command is empty and the image has no entry point.
    """
    return image.argv([translation.apply(word) for word in command], [])
