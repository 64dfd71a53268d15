"""What an agent's process does without: imported before anything else of it.

Guarantees: nothing here changes what the agent does. Each is measured, on a process that has
50 MB and starts in half a second; `benchmarks/agent/startup.py` says what it has now.
"""

import os
import ssl
import sys
import types
from typing import Any

# structlog loads rich if there is one (the [cli] extra): 6 MB and 80 ms for coloured traces
# that no pod prints. A module that is None is as good as not installed.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

# pydantic looks through all installed packages for plugins, which is 1 MB and 30 ms; this
# process has none. Its switch for that saves the search only, so the searcher goes as well.
_NO_PLUGINS = types.ModuleType("pydantic.plugin._loader")
_NO_PLUGINS.get_plugins = tuple  # type: ignore[attr-defined]
sys.modules.setdefault(_NO_PLUGINS.__name__, _NO_PLUGINS)

# aiohttp's lists of hooks, of which we have none: 1 MB in C, next to nothing in Python.
os.environ.setdefault("FROZENLIST_NO_EXTENSIONS", "1")


class _LateRoots(ssl.SSLContext):
    """A context that reads the machine's TLS roots when a connection first needs them."""

    _read = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        if not self._read:
            self._read = True
            self.load_default_certs()
        return super().wrap_bio(*args, **kwargs)


def _without_roots(*args: Any, **kwargs: Any) -> ssl.SSLContext:
    plain: Any = ssl.SSLContext
    load, plain.load_default_certs = plain.load_default_certs, lambda *_: None
    try:
        context = _create(*args, **kwargs)
    finally:
        plain.load_default_certs = load
    context.__class__ = _LateRoots
    return context


# aiohttp makes its TLS context when it is imported, and that reads 150 certificates: a tenth of the
# start and 0.8 MB, and most agents speak to Services only, without TLS. Until the roots are read,
# no certificate is trusted.
_create, ssl.create_default_context = ssl.create_default_context, _without_roots
try:
    import aiohttp.connector  # noqa: F401
finally:
    ssl.create_default_context = _create
