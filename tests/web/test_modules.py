"""The modules that run a model without a page, in Node.js: checked equations, votes, aborts, downloads."""

import json
import shutil
import subprocess
from typing import Any

import pytest
from thirteen.runtime.arithmetic.notation import PATH
from thirteen.runtime.effort import Effort, vote_confidence
from thirteen.runtime.prompt.prompt_encoder import question_messages
from thirteen.runtime.prompt.worked_examples import with_worked_examples
from thirteen.web.shared_modules import shared_modules

from ..runtime.arithmetic.cases import STANDING_ALONE
from ..runtime.arithmetic.hostile_pieces import ANSWER_PIECES, EQUATION_PIECES
from .arithmetic_vectors import vectors

NODE = shutil.which("node")
NODE_TEST = pytest.mark.skipif(NODE is None, reason="needs Node.js")


@pytest.fixture(scope="module")
def run_node(tmp_path_factory):
    """run_node(function, arguments): call a JavaScript function once for each argument."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "wllama").mkdir()
    files = shared_modules() | {"package.json": b'{"type": "module"}'}
    for name, content in (files | {"wllama/index.min.js": b"export class Wllama {}"}).items():
        (folder / name).write_bytes(content)

    def run(function: str, arguments: list[Any]) -> list[Any]:
        script = f"""import {{ readFileSync }} from "node:fs";
import {{ checkAnswer }} from "./checked_answer.js";
import {{ StepStream }} from "./equations.js";
import {{ standsAlone }} from "./grounding.js";
const results = JSON.parse(readFileSync(0, "utf8")).map({function});
console.log(JSON.stringify(await Promise.all(results)));"""
        done = subprocess.run(
            [str(NODE), "--input-type=module", "--eval", script],
            cwd=folder,
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        result: list[Any] = json.loads(done.stdout)
        return result

    return run


def test_the_tables_are_those_of_python():
    code = shared_modules()["notation.js"].decode()
    tables = json.loads(code.removeprefix("export default ").removesuffix(";\n"))
    assert tables == json.loads(PATH.read_text("utf-8"))


@NODE_TEST
def test_checks_are_those_of_python(run_node):
    expected = vectors()
    asked = [{name: vector[name] for name in ("text", "question")} for vector in expected]
    found = run_node("({ text, question }) => checkAnswer(text, question)", asked)
    results = [one | result for one, result in zip(asked, found, strict=True)]
    assert results == expected
    assert sum(len(vector["steps"]) for vector in expected) > 250


@NODE_TEST
def test_questions_stand_alone_as_in_python(run_node):
    questions, alone = zip(*STANDING_ALONE, strict=True)
    assert run_node("standsAlone", list(questions)) == list(alone)


@NODE_TEST
def test_pieces_of_a_text_give_the_equations_of_the_whole(run_node):
    streamed = """([text, size]) => {
      const stream = new StepStream();
      const starts = Array.from({ length: text.length / size + 1 }, (_, n) => n * size);
      const pieces = starts.map((start) => text.slice(start, start + size));
      return JSON.stringify([...pieces.flatMap((piece) => stream.feed(piece)), ...stream.finish()]) ===
        JSON.stringify(checkAnswer(text).steps);
    }"""
    texts = [vector["text"] for vector in vectors()]
    assert all(run_node(streamed, [[text, 1 + number % 9] for number, text in enumerate(texts)]))


SECONDS = """({ text, ends }) => {
  const start = process.cpuUsage();
  for (const end of ends) checkAnswer(text + end, "");
  return process.cpuUsage(start).user / 1e6;
}"""


@NODE_TEST
@pytest.mark.slow
@pytest.mark.exhaustive
def test_time_is_linear_in_hostile_text(run_node):
    """Backtracking over 50 kB would take minutes of the processor."""
    pieces = list(dict.fromkeys((*EQUATION_PIECES, *ANSWER_PIECES)))
    texts = [{"text": piece * (50_000 // len(piece)), "ends": ["= 1", "}"]} for piece in pieces]
    seconds = dict(zip(pieces, run_node(SECONDS, texts), strict=True))
    assert max(seconds.values()) < 10, max(seconds, key=lambda piece: seconds[piece])


VOTES = """async ([effort, answers]) => {
  const { Model } = await import("./model.js");
  async function createChatCompletion({ seed, onData }) {
    const [content, finish_reason] = answers[seed];
    onData({ choices: [{ delta: { content } }] });
    onData({ choices: [{ finish_reason }] });
  }
  const model = new Model({ createChatCompletion }, { name: "fake", context: 512 });
  const tallies = [];
  for await (const { event, data } of model.events("1 + 1", { effort })) {
    if (event === "tally") tallies.push(data.ended);
    const { value, tally, usage } = data;
    if (event === "answer") return [value, tally.votes, tallies.at(-1), usage.completion_tokens];
  }
}"""
CUT, FIVE, SIX = ["The answer is 7.", "length"], ["The answer is 5.", "stop"], ["4 + 2 = 6", "stop"]
CUT_SIX, WRONG = ["4 + 2 = 6. So", "length"], ["2 + 2 = 5", "stop"]
NONE = ["I do not know.", "stop"]


@NODE_TEST
@pytest.mark.parametrize(
    ("answers", "value", "votes", "ended"),
    [
        pytest.param([CUT, CUT, FIVE, FIVE], "5", {"5": 2}, 4, id="answers that were cut off have no vote"),
        pytest.param([WRONG, SIX, WRONG, SIX], "6", {"6": 2}, 4, id="nor have those with a wrong equation"),
        pytest.param([CUT, CUT_SIX] * 4, None, {}, 8, id="what was cut off has no value"),
        pytest.param([*[NONE] * 5, *[CUT] * 3], None, {}, 8, id="without any vote even no value may win"),
        pytest.param([FIVE, SIX] * 4, "6", {"6": 4, "5": 4}, 8, id="a verified value wins a tie"),
        pytest.param([FIVE, SIX, *[FIVE] * 3], "5", {"5": 4, "6": 1}, 5, id="a certain majority ends it"),
        pytest.param([*[CUT] * 7, FIVE], "5", {"5": 1}, 8, id="the last answer can be the only vote"),
    ],
)
def test_a_vote_is_the_engines(run_node, answers, value, votes, ended):
    assert run_node(VOTES, [["medium", answers]]) == [[value, votes, ended, ended]]


CONFIDENT = """async ([first, second, grounded]) => {
  const { confidence } = await import("./vote.js");
  return confidence({ value: "7", stop_reason: "end", grounded, tally: { votes: { 31: second, 7: first } } });
}"""


@NODE_TEST
def test_the_confidence_is_that_of_the_engine(run_node):
    counts = [
        (first, second, grounded)
        for first in range(5)
        for second in range(first + 1)
        for grounded in (False, True)
    ]
    assert run_node(CONFIDENT, counts) == pytest.approx([vote_confidence(*one) for one in counts])


DECIDED = """async ([effort, first, second, ended]) => {
  const { isDecided, votingRule } = await import("./vote.js");
  const rule = votingRule(effort, "2");
  return isDecided({ asked: rule.answers, ended, votes: { 31: second, 7: first } }, rule);
}"""


@NODE_TEST
def test_a_vote_is_decided_as_in_the_engine(run_node):
    counts = [
        (effort, first, second, ended)
        for effort in (Effort.MEDIUM, Effort.HIGH)
        for ended in range(effort.rule.answers + 1)
        for first in range(ended + 1)
        for second in range(min(first, ended - first) + 1)
    ]
    assert run_node(DECIDED, counts) == [
        ended == effort.rule.answers or effort.rule.is_decided(first, second, effort.rule.answers - ended)
        for effort, first, second, ended in counts
    ]


SENT = """async ([question, options, context]) => {
  const { Model } = await import("./model.js");
  const sent = [];
  const createChatCompletion = async ({ messages, temperature, seed }) => {
    sent.push([messages, temperature, Number.isInteger(seed)]);
  };
  const model = new Model({ createChatCompletion }, { name: "fake", context });
  for await (const _ of model.events(question, options));
  return sent[0];
}"""


@NODE_TEST
@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize(
    ("question", "options", "temperature", "examples"),
    [
        ("1 + 1", {}, 0, False),
        ("1 + 1", {"effort": "medium"}, 0.7, True),
        ("1 + 1", {"effort": "low", "temperature": 0.3}, 0.3, False),
        ("1 + 1", {"effort": "high", "temperature": 0.3}, 0.3, True),
        ("Name a colour", {"effort": "high"}, 0, False),
    ],
)
def test_what_reaches_the_model_is_what_the_engine_gets(
    run_node, system, question, options, temperature, examples
):
    messages = question_messages(question, system or None)
    messages = with_worked_examples(messages) if examples else messages
    sent = [{"role": message.role, "content": message.content} for message in messages]
    small = [question, options | {"system": system}, 256]  # of which examples would take more than half
    found, without = run_node(SENT, [[*small[:2], 2048], small])
    assert found == [sent, temperature, True] and without[1:] == found[1:]
    assert without[0] == [one for one in sent if one["content"] in (system, question)]


@NODE_TEST
def test_a_long_question_has_no_worked_examples(run_node):
    """Their room was taken from the answer."""
    ((messages, *_),) = run_node(SENT, [["1 + 1 = " + "?" * 4000, {"effort": "high"}, 2048]])
    assert len(messages) == 1


THOUGHT = """async () => {
  const { Model } = await import("./model.js");
  const deltas = [{ reasoning_content: "2 + 2 = 5?" }, { content: "2 + 5 = 7", reasoning_content: null }];
  const createChatCompletion = async ({ onData }) => {
    for (const delta of deltas) onData({ choices: [{ delta }] });
  };
  const model = new Model({ createChatCompletion }, { name: "fake", context: 512 });
  const events = [];
  for await (const { event, data } of model.events("2 + 5")) events.push([event, data.text, data.thinking]);
  return events;
}"""


@NODE_TEST
def test_a_thought_is_told_apart_in_the_browser_too(run_node):
    assert run_node(THOUGHT, [[]])[0] == [
        ["thinking", "2 + 2 = 5?", None],
        ["text", "2 + 5 = 7", None],
        ["step", None, None],
        ["answer", "2 + 5 = 7", "2 + 2 = 5?"],
    ]


GROUNDED = """async (system) => {
  const { Model } = await import("./model.js");
  const choices = [{ delta: { content: "2 + 5 = 7" } }];
  const createChatCompletion = async ({ onData }) => onData({ choices });
  const model = new Model({ createChatCompletion }, { name: "fake", context: 512 });
  const grounded = [];
  for await (const { data } of model.events("2 + 2", { system })) grounded.push(data.grounded);
  return grounded.at(-1);
}"""


@NODE_TEST
def test_numbers_of_the_system_prompt_ground_nothing(run_node):
    """As in the engine: they are not the question's."""
    assert run_node(GROUNDED, ["Add 5."]) == [False]


ABORTED = """async (text) => {
  const { Model } = await import("./model.js");
  const createChatCompletion = ({ abortSignal, onData }) => new Promise((_, reject) => {
    abortSignal.addEventListener("abort", () => reject(new Error("Operation aborted")));
    onData({ choices: [{ delta: { content: text } }] });
  });
  const model = new Model({ createChatCompletion }, { name: "fake", context: 512 });
  const stop = new AbortController();
  try {
    for await (const _ of model.events("1 + 1", { signal: stop.signal })) stop.abort();
  } catch (error) { return error.name; }
}"""


@NODE_TEST
def test_an_abort_is_no_failure_of_the_model(run_node):
    """It was a ModelError, while an aborted load threw an AbortError."""
    assert run_node(ABORTED, ["2"]) == ["AbortError"]


LOADS = """async (ends) => {
  const { Model } = await import("./model.js");
  const answers = [];
  const load = async () => {
    const number = answers.push([]);
    const createChatCompletion = async ({ onData }) => {
      answers.at(-1).push(ends[answers.flat().length]);
      if (answers.at(-1).at(-1) === "crash") throw new Error("wllama has crashed");
      const timings = { prompt_n: answers.at(-1).at(-1), predicted_n: 10 };
      onData({ choices: [{ delta: { content: "2" } }], timings });
    };
    const exit = async () => { if (number !== answers.length) throw new Error("twice"); };
    return { createChatCompletion, exit };
  };
  const model = new Model(await load(), { name: "fake", context: 512 }, load);
  for (const _ of ends) {
    try {
      for await (const _ of model.events("1 + 1")) {}
    } catch (error) { if (!/crashed/.test(error.message)) throw error; }
  }
  return answers;
}"""


@NODE_TEST
def test_an_engine_is_renewed_when_it_has_crashed_or_computed_much(run_node):
    """It kept the KV cache of every question, and after a crash failed until the page was loaded anew."""
    ends = [1000, 1000, 1000, 2000, 100, "crash", 100]
    assert run_node(LOADS, [ends]) == [[[1000, 1000, 1000], [2000, 100], ["crash"], [100]]]


STORED = """async () => {
  const { modelBlob } = await import("./parts.js");
  const storage = { persist: () => new Promise(() => {}) };
  Object.defineProperty(globalThis, "navigator", { value: { storage } });
  globalThis.caches = { keys: async () => [], open: async () => ({ put: async () => {} }) };
  const model = { sha256: "0", parts: [] };
  return (await modelBlob(model, "http://localhost/", new AbortController().signal, () => {})).cached;
}"""


@NODE_TEST
def test_no_permission_is_waited_for(run_node):
    """Where a browser asks whether the page may store data, an ignored prompt kept it from loading."""
    assert run_node(STORED, [None]) == [True]


FETCHES = """async (fault) => {
  const { modelBlob } = await import("./parts.js");
  const failure = new TypeError("fetch failed", { cause: new Error("no such file") });
  globalThis.fetch = async (address) => {
    if (address.endsWith("request.bin")) throw failure;
    const failing = new ReadableStream({ pull: () => Promise.reject(failure) });
    return new Response(address.endsWith("body.bin") ? failing : "content");
  };
  const onProgress = () => { if (fault === "progress") throw new RangeError("of the caller"); };
  const model = { sha256: "0", parts: [{ name: `${fault}.bin`, sha256: "0" }] };
  const { signal } = new AbortController();
  return modelBlob(model, "http://localhost/", signal, onProgress).catch((error) =>
    `${error.constructor.name} ${error.message}`);
}"""


@NODE_TEST
def test_a_failed_download_tells_why(run_node):
    """All was an unreachable network: a missing file, and an error of the caller's onProgress too."""
    *failed, progress = run_node(FETCHES, ["request", "body", "progress"])
    cause = "LoadError A part of the model cannot be fetched, {}.bin: no such file."
    assert failed == [
        f"{cause.format(name)} Check the connection and try again." for name in ("request", "body")
    ]
    assert progress == "RangeError of the caller"


DESCRIPTIONS = """async (bodies) => {
  const { fetchDescription } = await import("./description.js");
  const found = [];
  for (const body of bodies) {
    globalThis.fetch = async () => new Response(body);
    const description = fetchDescription("http://localhost/", new AbortController().signal);
    const sentence = (error) => `${error.constructor.name} ${error.message}`;
    found.push(await description.then(({ name }) => name, sentence));
  }
  return found;
}"""


@NODE_TEST
def test_what_describes_no_model_is_a_sentence(run_node):
    """A host's page for missing files, and null, were other errors on the web page."""
    good = {
        **{"name": "x", "sha256": "0", "file_bytes": 1, "needed_bytes": 1, "context": 1},
        "parts": [{"name": "parts/a.bin", "sha256": "0", "bytes": 1}],
    }
    parts = ({}, None, good["parts"][0] | {"bytes": 0})
    bad = [json.dumps(good | {"parts": [part]}) for part in parts] + ["<!doctype html>", "null", "{}"]
    (found,) = run_node(DESCRIPTIONS, [[json.dumps(good), *bad]])
    none = "LoadError There is no model at http://localhost/: model.json describes none."
    assert found == ["x", *[none] * len(bad)]
