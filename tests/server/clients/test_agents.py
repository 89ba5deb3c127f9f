"""Agents of LangChain, OpenAI's Agents SDK and Pydantic AI use two tools, one after the other, and answer."""

import json

import pytest

from ..serving import TIMEOUT_S

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
def tools(say):
    say(*TEXTS)
    return Tools()


@pytest.mark.parametrize("responses", [False, True])
def test_langchain(tool_server, tools, responses):
    agents = pytest.importorskip("langchain.agents")
    from langchain_openai import ChatOpenAI

    url = f"{tool_server.url}/v1"
    model = ChatOpenAI(
        model="default",
        base_url=url,
        api_key="unused",
        timeout=TIMEOUT_S,
        use_responses_api=responses,
        **({} if responses else {"presence_penalty": 0.1}),
    )
    agent = agents.create_agent(model, [tools.temperature, tools.add], system_prompt="Be brief.")
    messages = agent.invoke({"messages": [{"role": "user", "content": QUESTION}]})["messages"]
    assert messages[-1].text == TEXTS[-1] and tools.asked == ["Oslo", (3, 20)]


@pytest.mark.parametrize("api", ["OpenAIResponsesModel", "OpenAIChatCompletionsModel"])
@pytest.mark.parametrize("stream", [False, True])
def test_openai_agents(tool_server, tools, api, stream):
    agents = pytest.importorskip("agents")
    import asyncio

    from openai import AsyncOpenAI

    agents.set_tracing_disabled(disabled=True)

    async def run():
        async with AsyncOpenAI(
            base_url=f"{tool_server.url}/v1", api_key="unused", timeout=TIMEOUT_S
        ) as client:
            agent = agents.Agent(
                name="agent",
                instructions="Be brief.",
                model=getattr(agents, api)("default", client),
                tools=[agents.function_tool(tools.temperature), agents.function_tool(tools.add)],
            )
            if not stream:
                return (await agents.Runner.run(agent, QUESTION)).final_output
            result = agents.Runner.run_streamed(agent, QUESTION)
            async for _ in result.stream_events():
                pass
            return result.final_output

    assert asyncio.run(run()) == TEXTS[-1] and tools.asked == ["Oslo", (3, 20)]


@pytest.mark.parametrize("api", ["OpenAIResponsesModel", "OpenAIChatModel"])
def test_pydantic_ai(tool_server, tools, api):
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models import openai as models
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{tool_server.url}/v1", api_key="unused")
    agent = pydantic_ai.Agent(
        getattr(models, api)("default", provider=provider), tools=[tools.temperature, tools.add]
    )
    assert agent.run_sync(QUESTION).output == TEXTS[-1] and tools.asked == ["Oslo", (3, 20)]
