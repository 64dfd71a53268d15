import pytest

from kaos.toolserver.settings import LOCALHOST, Settings, SettingsError


def test_defaults() -> None:
    settings = Settings.from_env({"MCP_BUILTIN": "test-mcp-echo-server"})
    assert settings.name == settings.builtin == "test-mcp-echo-server"
    assert settings.listen == "127.0.0.1:8000"
    assert settings.allowed_hosts == LOCALHOST


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "none is set"),
        ({"MCP_BUILTIN": "a", "MCP_TOOLS_STRING": "b"}, "MCP_BUILTIN and MCP_TOOLS_STRING are set"),
        ({"MCP_PACKAGE": "a", "MCP_RUNTIME": "ruby"}, "MCP_RUNTIME is 'ruby'"),
    ],
)
def test_exactly_one_kind_of_tools(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_env(env)


def test_the_source_is_taken_out_of_the_environment() -> None:
    env = {"MCP_TOOLS_STRING": "def f(): ...", "MCP_SERVER_NAME": "mine"}
    settings = Settings.from_env(env)
    assert (settings.name, settings.source) == ("mine", "def f(): ...")
    assert "MCP_TOOLS_STRING" not in env


@pytest.mark.parametrize(
    ("listen", "extra", "allowed"),
    [
        ("0.0.0.0:8000", "", None),
        ("[::]:8000", "", None),
        ("0.0.0.0:8000", "a.b, c", (*LOCALHOST, "a.b", "c")),
        ("127.0.0.1:41000", "", LOCALHOST),
        ("[::1]:41000", "", LOCALHOST),
        ("localhost:41000", "a", (*LOCALHOST, "a")),
    ],
)
def test_hosts(listen: str, extra: str, allowed: tuple[str, ...] | None) -> None:
    env = {"MCP_BUILTIN": "x", "KAOS_LISTEN": listen, "KAOS_ALLOWED_HOSTS": extra}
    assert Settings.from_env(env).allowed_hosts == allowed
