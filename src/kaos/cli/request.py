"""What the user asked `kaos up` to do."""

import dataclasses
from collections.abc import Mapping

from kaos.cli.check import check
from kaos.cli.errors import UsageError
from kaos.cli.manifests import Manifest, load
from kaos.local.state import State


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The command line of `kaos up`."""

    state: State
    files: tuple[str, ...] = ()
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    port: int = 8080
    ask: str | None = None
    detach: bool = False
    timeout: float = 300.0

    def load(self) -> list[Manifest]:
        """The objects in the files, checked.

        Raises:
            UsageError: a file, or what is in it, is wrong; or there is nobody to ask.
        """
        manifests = load(self.files)
        check(manifests)
        if self.ask is not None and self.files and agent_in(manifests) is None:
            raise UsageError(f"--ask: there is no Agent in {', '.join(self.files)}")
        return manifests


def agent_in(manifests: list[Manifest]) -> Manifest | None:
    """The first Agent."""
    return next((manifest for manifest in manifests if manifest.kind == "Agent"), None)
