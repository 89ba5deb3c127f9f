"""The program `llm` and its Python API, with the server as a model of OpenAI's API."""

import json
import os
import subprocess
import sys

import jsonschema
import pytest

FLAG = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
QUESTION = "Name a colour."


@pytest.fixture(scope="module")
def folder(tiny_server, tool_server, tmp_path_factory):
    """Folder of the configuration of `llm`, which knows the servers."""
    folder = tmp_path_factory.mktemp("llm")
    entry = "- {{model_id: {}, model_name: tiny, api_base: '{}/v1', {}}}\n"
    (folder / "extra-openai-models.yaml").write_text(
        entry.format("thirteen", tiny_server.url, "supports_schema: true")
        + entry.format("thirteen-text", tiny_server.url, "completion: true")
        + entry.format("thirteen-responses", tiny_server.url, "responses: true")
        + entry.format("thirteen-tools", tool_server.url, "supports_tools: true")
    )
    return folder


@pytest.fixture(scope="module", autouse=True)
def llm(folder, offline):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_USER_PATH", str(folder))
        import llm

        yield llm


@pytest.fixture(scope="module")
def expected(tiny_server):
    """What OpenAI's client gets for the same question."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    with tiny_server.openai() as client:
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0)
    return answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_prompt(llm, expected, stream):
    model = llm.get_model("thirteen")
    answer = model.prompt(QUESTION, system="Be brief.", stream=stream, temperature=0, max_tokens=12)
    assert "".join(answer) == expected
    assert answer.usage().output == 12


def test_a_conversation(llm, tiny_server):
    conversation = llm.get_model("thirteen").conversation()
    first, second = (
        conversation.prompt(text, temperature=0, max_tokens=12).text() for text in (QUESTION, "Another?")
    )
    said = [("user", QUESTION), ("assistant", first), ("user", "Another?")]
    messages = [{"role": role, "content": text} for role, text in said]
    with tiny_server.openai() as client:
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0)
    assert second == answer.choices[0].message.content


def test_a_schema_is_enforced(llm):
    answer = llm.get_model("thirteen").prompt(QUESTION, schema=FLAG, temperature=0, max_tokens=60)
    jsonschema.validate(json.loads(answer.text()), FLAG)


def test_text_completion(llm, tiny_server):
    with tiny_server.openai() as client:
        fields = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
        expected = client.completions.create(model="tiny", **fields).choices[0].text
    model = llm.get_model("thirteen-text")
    assert model.prompt("Once upon a time", temperature=0, max_tokens=8).text() == expected


@pytest.mark.parametrize("stream", [False, True])
def test_responses(llm, expected, stream):
    model = llm.get_model("thirteen-responses")
    answer = model.prompt(QUESTION, system="Be brief.", stream=stream, temperature=0, max_tokens=12)
    assert answer.text() == expected


def test_tools(llm, say):
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"Rain in {city}"

    say(CALL, "It rains.")
    model = llm.get_model("thirteen-tools")
    chain = model.chain("Will it rain?", tools=[weather], options={"temperature": 0, "max_tokens": 100})
    assert chain.text() == "It rains."


def run(*words):
    command = [sys.executable, "-m", "llm", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


OPTIONS = ("-m", "thirteen", "-o", "temperature", "0", "-o", "max_tokens", "12")


@pytest.mark.slow
def test_the_command_line(expected):
    assert "thirteen-text" in run("models")
    assert run(QUESTION, "-s", "Be brief.", *OPTIONS).rstrip("\n") == expected.rstrip("\n")
    assert run(QUESTION, "-s", "Be brief.", "--no-stream", *OPTIONS).rstrip("\n") == expected.rstrip("\n")
    flag = run(QUESTION, "--schema", json.dumps(FLAG), *OPTIONS[:-1], "60")
    jsonschema.validate(json.loads(flag), FLAG)
