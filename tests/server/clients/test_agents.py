"""Agents of LangChain, OpenAI's Agents SDK and Pydantic AI use two tools, one after the other, and answer."""

import asyncio
import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of pydantic, in these clients

QUESTION = "How warm are Oslo and Rome together?"
FIRST = {"name": "temperature", "arguments": {"city": "Oslo"}}
SECOND = {"name": "add", "arguments": {"a": 3, "b": 20}}
# As Qwen's template writes a call, and as its small models write one.
TEXTS = [
    f"<tool_call>\n{json.dumps(FIRST)}\n</tool_call>",
    f"```json\n{json.dumps(SECOND)}\n```",
    "23 degrees.",
]


class Tools:
    """The two tools, and what they were asked."""

    def __init__(self):
        self.asked = []

    def temperature(self, city: str) -> str:
        """The temperature of a city."""
        self.asked.append(city)
        return "3 in Oslo, 20 in Rome"

    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        self.asked.append((a, b))
        return a + b


@pytest.fixture
def tools(server, say):
    say(*TEXTS)
    return Tools()


@pytest.mark.parametrize("options", [{"use_responses_api": True}, {"presence_penalty": 0.1}])
def test_langchain(tools, options):
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    agent = create_agent(ChatOpenAI(model="tiny", **options), [tools.temperature, tools.add])
    messages = agent.invoke({"messages": [{"role": "user", "content": QUESTION}]})["messages"]
    assert messages[-1].text == TEXTS[-1] and tools.asked == ["Oslo", (3, 20)]


@pytest.mark.parametrize("api", ["OpenAIResponsesModel", "OpenAIChatCompletionsModel"])
@pytest.mark.parametrize("stream", [False, True])
def test_openai_agents(tools, api, stream):
    import agents
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(disabled=True)

    async def run():
        async with AsyncOpenAI() as client:
            functions = [agents.function_tool(tools.temperature), agents.function_tool(tools.add)]
            agent = agents.Agent("agent", model=getattr(agents, api)("tiny", client), tools=functions)
            if not stream:
                return (await agents.Runner.run(agent, QUESTION)).final_output
            result = agents.Runner.run_streamed(agent, QUESTION)
            async for _ in result.stream_events():
                pass
            return result.final_output

    assert asyncio.run(run()) == TEXTS[-1] and tools.asked == ["Oslo", (3, 20)]


@pytest.mark.parametrize("api", ["openai-responses", "openai-chat"])
def test_pydantic_ai(tools, api):
    from pydantic_ai import Agent

    agent = Agent(f"{api}:tiny", tools=[tools.temperature, tools.add])
    assert agent.run_sync(QUESTION).output == TEXTS[-1] and tools.asked == ["Oslo", (3, 20)]
