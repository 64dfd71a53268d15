"""The registry of MCP runtimes: a ConfigMap that gives names to images of MCP servers.

`runtime: slack` of an MCPServer is a name in `runtimes.yaml` of the ConfigMap `kaos-mcp-runtimes`
in the controller's namespace, in the form that the earlier KAOS had:

    runtimes:
      slack:
        image: corp/slack-mcp:1.4.2     # serves MCP at /mcp on port 8000
        args: [--transport, http]       # and command, if it is not the image's own
        paramsEnvVar: SLACK_CHANNELS    # gets the MCPServer's params
        requiredEnv: [SLACK_BOT_TOKEN]  # must be in its config.env
        env: [{name: LOG, value: info}]
      node-runtime: {image: corp/kaos-node:1}  # also for the types python-runtime and node-runtime

Guarantees: here, and nowhere else, a runtime's name becomes an image: what comes out is a server
of type custom (or one with another image), and the builders know no more. A name that is not
there, or an entry that cannot be used, is refused with the names that are. A registry that cannot
be read changes nothing that runs: it is told on every server that would have to ask it.
"""

from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from kaos.api import EnvVar, InvalidSpecError, MCPServer, ServerType
from kaos.api.compat import RUNTIMES
from kaos.api.meta import Model
from kaos.api.pod import EnvVars
from kaos.reconcilers.children.user_yaml import UserYamlError, load
from kaos.reconcilers.children.workload import literal
from kaos.runtime import Object

NAME, KEY = "kaos-mcp-runtimes", "runtimes.yaml"
TRANSPORTS = (None, "http", "streamable-http")


class Runtime(Model):
    """One entry."""

    image: str = Field(min_length=1)
    command: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)
    params_env_var: str | None = None
    required_env: list[str] = Field(default_factory=list)
    env: EnvVars = Field(default_factory=list)
    transport: str | None = None


_ENTRIES: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def resolved(server: MCPServer, registry: Object | None) -> MCPServer:
    """The server as the registry makes it: of a type that the builders know.

    Args:
        server: as its user wrote it.
        registry: the ConfigMap, if there is one.

    Raises:
        InvalidSpecError: its runtime is not in the registry, or cannot be used.
    """
    spec = server.spec
    name = str(spec.runtime or spec.type)
    if spec.runtime is None and spec.type not in (ServerType.PYTHON, ServerType.NODE):
        return server
    entries = _entries(registry)
    if name not in entries:
        if spec.runtime is None:
            return server
        known = ", ".join(sorted({*RUNTIMES, *entries} - {"python-runtime", "node-runtime"}))
        raise InvalidSpecError(
            f'spec.runtime: "{name}" is not known (known: {known}); add it to {KEY} of ConfigMap '
            f'"{NAME}" in the controller\'s namespace, or use type custom'
        )
    return _with(server, _entry(name, entries[name]))


def _with(server: MCPServer, runtime: Runtime) -> MCPServer:
    spec, wish = server.spec, server.spec.container
    env = list(runtime.env)
    if runtime.params_env_var and spec.params is not None:
        env.append(EnvVar(name=runtime.params_env_var, value=literal(spec.params)))
    own = {variable.name for variable in spec.config.env}
    env = [variable for variable in env if variable.name not in own] + list(spec.config.env)
    names = {variable.name for variable in (*env, *wish.env)}
    if missing := [name for name in runtime.required_env if name not in names]:
        raise InvalidSpecError(f"spec.config.env: the runtime needs {', '.join(missing)}")
    update: dict[str, Any] = {"image": wish.image or runtime.image}
    if spec.runtime is not None:
        update["command"] = wish.command or runtime.command or None
        update["args"] = wish.args if wish.args is not None else runtime.args
    return server.model_copy(
        update={
            "spec": spec.model_copy(
                update={
                    "type": spec.type or ServerType.CUSTOM,
                    "container": wish.model_copy(update=update),
                    "config": spec.config.model_copy(update={"env": env}),
                }
            )
        }
    )


def _entries(registry: Object | None) -> dict[str, Any]:
    if registry is None:
        return {}
    try:
        document = load((registry.get("data") or {}).get(KEY, "")) or {}
        return _ENTRIES.validate_python(document.get("runtimes", document) or {}, strict=True)
    except (UserYamlError, ValidationError, AttributeError) as error:
        words = " ".join(str(error).split())[:200]
        raise InvalidSpecError(f'ConfigMap "{NAME}": {KEY} cannot be used: {words}') from error


def _entry(name: str, fields: Any) -> Runtime:
    where = f'ConfigMap "{NAME}": runtime "{name}"'
    try:
        runtime = Runtime.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "entry"
        raise InvalidSpecError(f"{where}: {place}: {first['msg']}") from error
    if runtime.transport not in TRANSPORTS:
        raise InvalidSpecError(
            f'{where}: transport "{runtime.transport}" is not served: agents speak streamable HTTP'
        )
    if runtime.command and runtime.command[0].startswith("-"):
        raise InvalidSpecError(
            f"{where}: command starts with the option {runtime.command[0]!r}; the words after the "
            "image's own program are args"
        )
    return runtime
