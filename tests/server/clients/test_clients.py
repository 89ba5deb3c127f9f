"""Other programs' clients get the text, the schemas and the calls that OpenAI's own client gets."""

import asyncio
import json
from functools import partial

import jsonschema
import pytest

from ..serving import TIMEOUT_S

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of pydantic, in these clients

SYSTEM, QUESTION = "Be brief.", "Name a colour."
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
FLAG = {
    "title": "flag",
    "description": "A flag.",
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


def chat_openai(server, tokens=12, **options):
    from langchain_openai import ChatOpenAI

    url = f"{server.url}/v1"
    return ChatOpenAI(
        model="tiny",
        base_url=url,
        api_key="unused",
        temperature=0,
        max_tokens=tokens,
        timeout=TIMEOUT_S,
        **options,
    )


def chat_ollama(server, tokens=12, **options):
    from langchain_ollama import ChatOllama

    return ChatOllama(base_url=server.url, model="tiny", temperature=0, num_predict=tokens, **options)


def langchain(make, server, *, stream=False, schema=None):
    if schema:
        structured = make(server, 60).with_structured_output(schema, method="json_schema")
        return json.dumps(structured.invoke(MESSAGES))
    model = make(server)
    return "".join(chunk.text for chunk in model.stream(MESSAGES)) if stream else model.invoke(MESSAGES).text


def litellm(provider, server, *, stream=False, schema=None):
    import litellm

    where = {"openai": {"api_base": f"{server.url}/v1"}, "ollama_chat": {"api_base": server.url}}
    common = {"model": f"{provider}/tiny", "api_key": "unused", "temperature": 0, "timeout": TIMEOUT_S}
    common |= where[provider] | {"messages": MESSAGES, "max_tokens": 60 if schema else 12}
    complete = partial(litellm.completion, **common)
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in complete(stream=True))
    if schema:
        schema = {"type": "json_schema", "json_schema": {"name": "flag", "schema": schema, "strict": True}}
    return complete(response_format=schema).choices[0].message.content


def llm(field, server, *, stream=False, schema=None):
    import llm

    entry = f"- {{model_id: one, model_name: tiny, api_base: '{server.url}/v1', {field}: true}}\n"
    (llm.user_dir() / "extra-openai-models.yaml").write_text(entry)
    given = {"temperature": 0, "max_tokens": 60 if schema else 12, "schema": schema, "stream": stream}
    return "".join(llm.get_model("one").prompt(QUESTION, system=SYSTEM, **given))


def pydantic_ai(api, server, *, stream=False, schema=None):
    from pydantic_ai import Agent, NativeOutput, StructuredDict
    from pydantic_ai.models import openai as models
    from pydantic_ai.providers.openai import OpenAIProvider

    model = getattr(models, api)(
        "tiny", provider=OpenAIProvider(base_url=f"{server.url}/v1", api_key="unused")
    )
    agent = Agent(
        model,
        instructions=SYSTEM,
        output_type=NativeOutput(StructuredDict(schema)) if schema else str,
        model_settings={"temperature": 0, "max_tokens": 60 if schema else 12},
    )
    if not stream:
        output = agent.run_sync(QUESTION).output
        return json.dumps(output) if schema else output

    async def run():
        async with agent.run_stream(QUESTION) as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    return asyncio.run(run())


CLIENTS = {
    "ChatOpenAI": partial(langchain, chat_openai),
    "ChatOpenAI, responses": partial(langchain, partial(chat_openai, use_responses_api=True)),
    "ChatOllama": partial(langchain, chat_ollama),
    "LiteLLM": partial(litellm, "openai"),
    "LiteLLM, Ollama": partial(litellm, "ollama_chat"),
    "pydantic-ai": partial(pydantic_ai, "OpenAIChatModel"),
    "pydantic-ai, responses": partial(pydantic_ai, "OpenAIResponsesModel"),
    "llm": partial(llm, "supports_schema"),
    "llm, responses": partial(llm, "responses"),
}


@pytest.fixture(scope="module", autouse=True)
def llm_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_USER_PATH", str(tmp_path_factory.mktemp("llm")))
        yield


@pytest.fixture(scope="module")
def expected(tiny_server):
    """What OpenAI's client gets for the same conversation."""
    with tiny_server.openai() as client:
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=12, temperature=0)
    return answer.choices[0].message.content


@pytest.mark.parametrize("client", CLIENTS)
def test_text_stream_and_schema(client, tiny_server, expected):
    ask = partial(CLIENTS[client], tiny_server)
    assert ask() == ask(stream=True) == expected
    if client != "llm, responses":
        jsonschema.validate(json.loads(ask(schema=FLAG)), FLAG)


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA", "RESPONSES_TOOLS"])
def test_instructor(mode, tool_server, say):
    """It is not among the extras, as it needs a jiter older than that of openai 3."""
    instructor = pytest.importorskip("instructor")
    from pydantic import create_model

    flag = create_model("Flag", ok=(bool, ...))
    say('{"ok": true}' if mode == "JSON_SCHEMA" else '{"name": "Flag", "arguments": {"ok": true}}')
    with tool_server.openai() as client:
        create = instructor.from_openai(client, mode=instructor.Mode[mode]).create
        assert create(model="tiny", messages=MESSAGES, response_model=flag).ok is True
