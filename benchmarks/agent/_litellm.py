"""LiteLLM's proxy, in an environment of its own (made on demand), in front of the model."""

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from _processes import free_port, process

sys.path.append(str(Path(__file__).parent.parent / "runtime"))

import _environments

VERSION = "1.106.2"
KEY = "sk-only-for-a-benchmark-on-loopback"
PATIENCE = 120.0  # it takes 8 s on a quiet machine
_CONFIG = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "{model}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
"""


@asynccontextmanager
async def litellm(model: str) -> AsyncIterator[str]:
    """Run the proxy; `UnavailableError` when it cannot be had here."""
    python = _environments.python("litellm", f"litellm[proxy]=={VERSION}")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(_CONFIG.format(model=model))
        command = (str(Path(python).parent / "litellm"), "--config", str(config))
        env = {
            "HOME": folder,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks a host on the Internet
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": KEY,
        }
        async with process(
            *(*command, "--host", "127.0.0.1", "--port", str(port)),
            python=python,
            port=port,
            patience=PATIENCE,
            **env,
        ) as url:
            yield url
