"""Other programs' clients get the text, the schemas and the calls that OpenAI's own client gets."""

import asyncio
import json
from functools import partial

import jsonschema
import pytest

from .. import serving

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of pydantic, in these clients

SYSTEM, QUESTION = "Be brief.", "Name a colour."
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
FLAG = serving.FLAG | {"title": "flag", "description": "A flag."}


def langchain(name, *, stream=False, schema=None, **options):
    import langchain_ollama
    import langchain_openai

    make = {"openai": langchain_openai.ChatOpenAI, "ollama": langchain_ollama.ChatOllama}[name]
    limit = {"openai": "max_tokens", "ollama": "num_predict"}[name]
    model = make(model="tiny", temperature=0, **{limit: 60 if schema else 12}, **options)
    if schema:
        return json.dumps(model.with_structured_output(schema, method="json_schema").invoke(MESSAGES))
    return "".join(chunk.text for chunk in model.stream(MESSAGES)) if stream else model.invoke(MESSAGES).text


def litellm(provider, *, stream=False, schema=None):
    import litellm

    common = {"model": f"{provider}/tiny", "temperature": 0, "messages": MESSAGES}
    complete = partial(litellm.completion, **common, max_tokens=60 if schema else 12)
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in complete(stream=True))
    if schema:
        schema = {"type": "json_schema", "json_schema": {"name": "flag", "schema": schema, "strict": True}}
    return complete(response_format=schema).choices[0].message.content


def pydantic_ai(api, *, stream=False, schema=None):
    from pydantic_ai import Agent, NativeOutput, StructuredDict

    agent = Agent(
        f"{api}:tiny",
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
    "ChatOpenAI": partial(langchain, "openai"),
    "ChatOpenAI, responses": partial(langchain, "openai", use_responses_api=True),
    "ChatOllama": partial(langchain, "ollama"),
    "LiteLLM": partial(litellm, "openai"),
    "LiteLLM, Ollama": partial(litellm, "ollama_chat"),
    "pydantic-ai": partial(pydantic_ai, "openai-chat"),
    "pydantic-ai, responses": partial(pydantic_ai, "openai-responses"),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_text_stream_and_schema(client, server):
    with server.openai() as official:
        answer = official.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=12, temperature=0
        )
    ask = CLIENTS[client]
    assert ask() == ask(stream=True) == answer.choices[0].message.content
    jsonschema.validate(json.loads(ask(schema=FLAG)), FLAG)
