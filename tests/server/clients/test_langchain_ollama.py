"""LangChain's ChatOllama: answers, streams and schemas."""

import asyncio
import json
from functools import reduce
from operator import add
from typing import Literal

import jsonschema
import ollama
import pytest
from pydantic import BaseModel

SAID = [("system", "Be brief."), ("human", "Hi"), ("ai", "Hello"), ("human", "Name a colour.")]
FLAG = {
    "title": "flag",
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


class Weather(BaseModel):
    """A forecast."""

    city: Literal["Oslo", "Rome"]
    rain: bool


@pytest.fixture(scope="module")
def chat_model(tiny_server):
    """chat_model(…): LangChain's model of the server."""
    from langchain_ollama import ChatOllama

    def make(**options):
        defaults = {"temperature": 0, "num_predict": 12, "validate_model_on_init": True}
        return ChatOllama(base_url=tiny_server.url, **{"model": "tiny"} | defaults | options)

    return make


@pytest.fixture(scope="module")
def expected(tiny_server):
    """What Ollama's client gets for the same conversation."""
    roles = {"human": "user", "ai": "assistant"}
    messages = [{"role": roles.get(role, role), "content": text} for role, text in SAID]
    options = {"temperature": 0, "num_predict": 12}
    return ollama.Client(tiny_server.url).chat("tiny", messages, options=options).message.content


def test_invoke(chat_model, expected):
    answer = chat_model().invoke(SAID)
    assert answer.text == expected and answer.usage_metadata["output_tokens"] == 12
    assert answer.response_metadata["done_reason"] == "length"
    assert asyncio.run(chat_model().ainvoke(SAID)).text == expected


def test_stream(chat_model, expected):
    chunks = list(chat_model().stream(SAID))
    whole = reduce(add, chunks)
    assert len(chunks) > 2 and whole.text == expected and whole.usage_metadata["output_tokens"] == 12


def test_parameters_reach_the_server(chat_model, expected):
    model = chat_model(stop=[expected[3:6]], seed=1, top_p=0.5, top_k=3, num_ctx=256, keep_alive="5m")
    answer = model.invoke(SAID)
    assert expected.startswith(answer.text) and len(answer.text) <= 3
    assert answer.response_metadata["done_reason"] == "stop"


def test_structured_output(chat_model):
    model = chat_model(num_predict=60)
    jsonschema.validate(model.with_structured_output(FLAG, method="json_schema").invoke(SAID), FLAG)
    assert Weather.model_validate(model.with_structured_output(Weather).invoke(SAID))
    assert Weather.model_validate(list(model.with_structured_output(Weather).stream(SAID))[-1])
    jsonschema.validate(json.loads(model.bind(format=FLAG).invoke(SAID).text), FLAG)


def test_what_is_not_supported_is_refused_by_name(chat_model):
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    with pytest.raises(ollama.ResponseError, match="tools is not supported"):
        chat_model().bind_tools([weather]).invoke(SAID)
    with pytest.raises(ValueError, match="not found"):
        chat_model(model="unknown")
