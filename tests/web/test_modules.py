"""The modules that run a model without a page, in Node.js: checked equations, votes, aborts, downloads."""

import json
import shutil
import subprocess
from pathlib import Path

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
CALLS = Path(__file__).with_name("module_calls.mjs")
NODE_TEST = pytest.mark.skipif(NODE is None, reason="needs Node.js")


@pytest.fixture(scope="module")
def run_node(tmp_path_factory):
    """run_node(name, arguments): call a function of module_calls.mjs once for each argument."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "wllama").mkdir()
    files = shared_modules() | {"package.json": b'{"type": "module"}', CALLS.name: CALLS.read_bytes()}
    for name, content in (files | {"wllama/index.min.js": b"export class Wllama {}"}).items():
        (folder / name).write_bytes(content)

    def run(name, arguments):
        done = subprocess.run(
            [str(NODE), CALLS.name, name],
            cwd=folder,
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_tables_are_those_of_python():
    code = shared_modules()["notation.js"].decode()
    tables = json.loads(code.removeprefix("export default ").removesuffix(";\n"))
    assert tables == json.loads(PATH.read_text("utf-8"))


@NODE_TEST
def test_checks_are_those_of_python(run_node):
    expected = vectors()
    asked = [{name: vector[name] for name in ("text", "question")} for vector in expected]
    found = run_node("checked", asked)
    results = [one | result for one, result in zip(asked, found, strict=True)]
    assert results == expected
    assert sum(len(vector["steps"]) for vector in expected) > 250


@NODE_TEST
def test_questions_stand_alone_as_in_python(run_node):
    questions, alone = zip(*STANDING_ALONE, strict=True)
    assert run_node("alone", list(questions)) == list(alone)


@NODE_TEST
def test_pieces_of_a_text_give_the_equations_of_the_whole(run_node):
    texts = [vector["text"] for vector in vectors()]
    assert all(run_node("streamed", [[text, 1 + number % 9] for number, text in enumerate(texts)]))


@NODE_TEST
@pytest.mark.slow
@pytest.mark.exhaustive
def test_time_is_linear_in_hostile_text(run_node):
    """Backtracking over 50 kB would take minutes of the processor."""
    pieces = list(dict.fromkeys((*EQUATION_PIECES, *ANSWER_PIECES)))
    texts = [{"text": piece * (50_000 // len(piece)), "ends": ["= 1", "}"]} for piece in pieces]
    seconds = dict(zip(pieces, run_node("seconds", texts), strict=True))
    assert max(seconds.values()) < 10, max(seconds, key=lambda piece: seconds[piece])


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
    assert run_node("vote", [["medium", answers]]) == [[value, votes, ended, ended]]


@NODE_TEST
def test_the_confidence_is_that_of_the_engine(run_node):
    counts = [
        (first, second, grounded)
        for first in range(5)
        for second in range(first + 1)
        for grounded in (False, True)
    ]
    assert run_node("confident", counts) == pytest.approx([vote_confidence(*one) for one in counts])


@NODE_TEST
def test_a_vote_is_decided_as_in_the_engine(run_node):
    counts = [
        (effort, first, second, ended)
        for effort in (Effort.MEDIUM, Effort.HIGH)
        for ended in range(effort.rule.answers + 1)
        for first in range(ended + 1)
        for second in range(min(first, ended - first) + 1)
    ]
    assert run_node("decided", counts) == [
        ended == effort.rule.answers or effort.rule.is_decided(first, second, effort.rule.answers - ended)
        for effort, first, second, ended in counts
    ]


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
    found, without = run_node("sent", [[*small[:2], 2048], small])
    assert found == [sent, temperature, True] and without[1:] == found[1:]
    assert without[0] == [one for one in sent if one["content"] in (system, question)]


@NODE_TEST
def test_a_long_question_has_no_worked_examples(run_node):
    """Their room was taken from the answer."""
    ((messages, *_),) = run_node("sent", [["1 + 1 = " + "?" * 4000, {"effort": "high"}, 2048]])
    assert len(messages) == 1


@NODE_TEST
def test_a_thought_is_told_apart_in_the_browser_too(run_node):
    assert run_node("thought", [[]])[0] == [
        ["thinking", "2 + 2 = 5?", None],
        ["text", "2 + 5 = 7", None],
        ["step", None, None],
        ["answer", "2 + 5 = 7", "2 + 2 = 5?"],
    ]


@NODE_TEST
def test_numbers_of_the_system_prompt_ground_nothing(run_node):
    """As in the engine: they are not the question's."""
    assert run_node("grounded", ["Add 5."]) == [False]


@NODE_TEST
def test_an_abort_is_no_failure_of_the_model(run_node):
    """It was a ModelError, while an aborted load threw an AbortError."""
    assert run_node("aborted", ["2"]) == ["AbortError"]


@NODE_TEST
def test_an_engine_is_renewed_when_it_has_crashed_or_computed_much(run_node):
    """It kept the KV cache of every question, and after a crash failed until the page was loaded anew."""
    ends = [1000, 1000, 1000, 2000, 100, "crash", 100]
    assert run_node("loads", [ends]) == [[[1000, 1000, 1000], [2000, 100], ["crash"], [100]]]


@NODE_TEST
def test_no_permission_is_waited_for(run_node):
    """Where a browser asks whether the page may store data, an ignored prompt kept it from loading."""
    assert run_node("stored", [None]) == [True]


@NODE_TEST
def test_a_failed_download_tells_why(run_node):
    """All was an unreachable network: a missing file, and an error of the caller's onProgress too."""
    *failed, progress = run_node("fetched", ["request", "body", "progress"])
    cause = "LoadError A part of the model cannot be fetched, {}.bin: no such file."
    assert failed == [
        f"{cause.format(name)} Check the connection and try again." for name in ("request", "body")
    ]
    assert progress == "RangeError of the caller"


@NODE_TEST
def test_what_describes_no_model_is_a_sentence(run_node):
    """A host's page for missing files, and null, were other errors on the web page."""
    good = {
        **{"name": "x", "sha256": "0", "file_bytes": 1, "needed_bytes": 1, "context": 1},
        "parts": [{"name": "parts/a.bin", "sha256": "0", "bytes": 1}],
    }
    parts = ({}, None, good["parts"][0] | {"bytes": 0})
    bad = [json.dumps(good | {"parts": [part]}) for part in parts] + ["<!doctype html>", "null", "{}"]
    (found,) = run_node("described", [[json.dumps(good), *bad]])
    none = "LoadError There is no model at http://localhost/: model.json describes none."
    assert found == ["x", *[none] * len(bad)]
