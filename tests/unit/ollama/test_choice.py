import pytest

from kaos.local.ollama.choice import Tool, called_for


def tool(name: str, description: str, *parameters: str) -> Tool:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    return Tool(name, description, {"type": "object", "properties": properties})


ASSISTANT = "You are a helpful assistant. Use the echo tool when asked to repeat something."
COORDINATOR = (
    "You are a coordinator. Delegate research tasks to researcher,\nand calculations to analyst.\n"
)
ECHO = [tool("echo", "Repeat a message: returns exactly the text it is given.", "message")]
PEERS = [
    tool("delegate_to_researcher", "Delegate a task: Research specialist with web search", "task"),
    tool("delegate_to_analyst", "Delegate a task: Data analyst with calculation tools", "task"),
]
OTHERS = [
    tool("get_weather", "Get the current weather of a city.", "city"),
    tool("add", "Add two numbers.", "a", "b"),
    tool("web_search", "Search the web for information.", "query"),
]


@pytest.mark.parametrize(
    ("system", "tools", "message", "expected"),
    [
        (ASSISTANT, ECHO, "Hello!", []),
        (ASSISTANT, ECHO, "What is the capital of France?", []),
        (ASSISTANT, ECHO, "What tools can you use?", []),
        (ASSISTANT, ECHO, "What is 2 + 2?", []),
        (ASSISTANT, ECHO, "use the echo tool to repeat hello", ["echo"]),
        (ASSISTANT, ECHO, "Repeat after me: good morning", ["echo"]),
        ("", ECHO, "ECHO: one two three", ["echo"]),
        (COORDINATOR, PEERS, "Hello!", []),
        (COORDINATOR, PEERS, "Research the Eiffel tower", ["delegate_to_researcher"]),
        (COORDINATOR, PEERS, "Calculate 12 * 7", ["delegate_to_analyst"]),
        (COORDINATOR, PEERS, "How much is 17 * 23?", ["delegate_to_analyst"]),
        (COORDINATOR, PEERS, "Let the analyst look", ["delegate_to_analyst"]),
        ("", OTHERS, "What's the weather in Paris?", ["get_weather"]),
        ("", OTHERS, "Add 2 and 3", ["add"]),
        ("", OTHERS, "Find information about llamas", ["web_search"]),
        ("", OTHERS, "Add the weather to the page", ["get_weather", "add"]),
        ("", OTHERS, "Good evening", []),
        ("", [], "Add 2 and 3", []),
    ],
)
def test_choice(system: str, tools: list[Tool], message: str, expected: list[str]) -> None:
    assert [found.name for found in called_for(system, tools, message)] == expected


def test_the_instructions_give_a_tool_its_words() -> None:
    odd = [tool("zap", "", "x")]
    assert called_for("Use zap when the user speaks of lightning.", odd, "lightning!") == odd
    assert called_for("You like lightning. Use zap at times.", odd, "lightning!") == []
