"""Settings: read whole, refused whole."""

import pytest

from kaos.agent.settings import Settings, SettingsError, variable_part

NEEDED = {"AGENT_NAME": "a", "MODEL_API_URL": "http://m:8000", "MODEL_NAME": "x"}


def test_the_least_that_is_needed() -> None:
    settings = Settings.from_env(NEEDED)
    assert (settings.name, settings.max_steps, settings.listen) == ("a", 5, "127.0.0.1:8000")
    assert settings.identity == "a.default"


def test_servers_and_peers_are_named_by_variables() -> None:
    settings = Settings.from_env(
        NEEDED
        | {
            "MCP_SERVERS": "echo-tools, search.v2",
            "MCP_SERVER_ECHO_TOOLS_URL": "http://mcpserver-echo-tools.ns:8000/",
            "MCP_SERVER_SEARCH_V2_URL": "http://s/mcp",
            "PEER_AGENTS": "[analyst]",
            "PEER_AGENT_ANALYST_CARD_URL": "http://analyst",
            "PEER_AGENT_ANALYST_TOKEN_FILE": "/tokens/analyst",
            "AGENTIC_LOOP_MAX_STEPS": "7",
        }
    )
    assert settings.mcp_servers == {
        "echo-tools": "http://mcpserver-echo-tools.ns:8000",
        "search.v2": "http://s/mcp",
    }
    assert settings.peers == {"analyst": "http://analyst"}
    assert settings.peer_token_files == {"analyst": "/tokens/analyst"}
    assert settings.max_steps == 7


def test_a_secret_that_ends_with_a_line_break_is_used_without_it() -> None:
    """A key with one in a header was refused by the client: never ready, and 500 for all."""
    settings = Settings.from_env(NEEDED | {"MODEL_API_KEY": "sk-1\n", "MODEL_NAME": "x\n"})
    assert settings.model_api_key.get_secret_value() == "sk-1"
    assert settings.model_name == "x"
    with pytest.raises(SettingsError, match="MODEL_API_KEY must be one line") as caught:
        Settings.from_env(NEEDED | {"MODEL_API_KEY": "sk-1\nsk-2"})
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://m:8000", "http://m:8000/", "http://m:8000/v1/"])
def test_the_models_url_may_end_in_v1(url: str) -> None:
    assert Settings.from_env(NEEDED | {"MODEL_API_URL": url}).model_api_url == "http://m:8000"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"MODEL_API_URL": "m:8000", "MCP_SERVERS": "a-b"})
    for part in (
        "AGENT_NAME is not set",
        "MODEL_NAME is not set",
        "MODEL_API_URL must be an http or https URL",
        "MCP_SERVERS names 'a-b', but MCP_SERVER_A_B_URL is not set",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AGENTIC_LOOP_MAX_STEPS", "0"),
        ("AGENTIC_LOOP_MAX_STEPS", "many"),
        ("AGENT_NAME", "a b"),
        ("KAOS_REQUEST_TIMEOUT", "-1"),
        ("MODEL_API_URL", "http://[broken"),
        ("MODEL_API_URL", "ftp://m"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_env(NEEDED | {variable: value})


def test_the_key_is_not_shown() -> None:
    settings = Settings.from_env(NEEDED | {"MODEL_API_KEY": "sk-very-secret"})
    assert "very-secret" not in repr(settings)


def test_names_become_variables_as_the_controller_makes_them() -> None:
    assert variable_part("search-tools.v2") == "SEARCH_TOOLS_V2"
