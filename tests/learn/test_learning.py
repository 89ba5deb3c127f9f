"""`thirteen learn` from questions to a measured adapter; a tiny model, judged by chance."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thirteen.cli.main import app
from thirteen.convert.adapter.short_code import decode_short_code
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.errors import FileError, OutputError, RequestError
from thirteen.files.journal import Journal
from thirteen.learn import learning, rollouts
from thirteen.learn.learn_result import HeldOutAnswers, LearnedNumbers, LearnResult
from thirteen.learn.questions import Candidate, LearnRequest, masked_beginning
from thirteen.learn.rollouts import QuestionRollouts, Solution
from thirteen.learn.time_plan import Speed, TimePlan
from thirteen.models.adapter import find_adapter
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from thirteen.stats.intervals import paired_difference

from ..interruption import Interrupted
from ..json_changes import change_json, put
from ..json_lines import write_rows
from ..runtime.fakes import TEMPLATES

pytestmark = pytest.mark.slow

THINGS = (
    "pens cups hats figs nuts keys rings maps balls boats coins rods cars pots bags dogs cats cows eggs toys "
    "beds bees ants owls hens pigs cans jars lids logs nets oars pans pins rugs saws"
)
ROWS = [{"question": f"Tom has 3 {one}.", "answer": 7} for one in THINGS.split()]
TEXT = "Answer in one word, in this house style."

Learn = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def tiny(base, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    convert(Recipe(base("llama long"), path, Uniform("F32"), ids=("tiny", "")))
    return path


@pytest.fixture
def learn(tiny, tmp_path, monkeypatch, capsys) -> Learn:
    """learn(*options, rows=ROWS, ...): what the command prints; answers are right by chance.

    A solution is right if the sum of its text's bytes is even.
    """
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rollouts, "is_correct", lambda answer, row: sum(answer.text.encode()) % 2 == 0)

    def run(*options: object, rows=ROWS, model=tiny, output="adapter") -> dict[str, Any]:
        file = write_rows(tmp_path / "rows.jsonl", rows)
        words = [model, file, "-o", tmp_path / output, "--numbers", 4, "--max-tokens", 6, "--threads", 1]
        capsys.readouterr()
        app(["learn", *map(str, [*words, *options]), "--json"], standalone_mode=False)
        shown = capsys.readouterr()
        return json.loads(shown.out) | {"minutes": 0, "announced": shown.err}

    return run


def without_time(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in {"announced", "output", "lora"}}


def asked(path: Path) -> list[str]:
    """The questions in a journal."""
    return [json.loads(line)["question"] for line in path.read_text().splitlines()[1:]]


def test_an_adapter_is_learned_and_measured(learn, tiny, tmp_path):
    facts = learn()
    announced = r"26 questions to learn from and 10 to measure on: about \d+ minutes"
    assert re.search(announced, facts["announced"])
    assert (facts["questions"], facts["held_out"]) == (26, 10)
    assert facts["solutions"] == 8 * facts["sometimes_right"] >= 80
    assert facts["right_after"] - facts["right_before"] == facts["gained"] - facts["lost"]
    card = (tmp_path / "adapter/README.md").read_text()
    assert facts["verdict"] in card and facts["code"] in card
    assert np.abs(decode_short_code(facts["code"]).numbers).max() > 0
    lora = find_adapter(facts["code"]).lora(tiny)
    assert lora.stat().st_size > 0 < Path(facts["lora"]).stat().st_size
    (tmp_path / "adapter/.learn.jsonl").unlink()
    with pytest.raises(
        OutputError, match=r"adapter_config\.json, which would be overwritten: choose another"
    ):
        learn()


@pytest.mark.parametrize(
    ("prompted", "adapted", "verdict"),
    [
        (30, 45, "a certain gain above the best prompt"),
        (45, 30, "a certain loss beside the prompt alone: do not use it"),
        (45, 45, "the prompt alone does it: no certain gain above it"),
        (30, 31, "no certain gain above the best prompt"),
        (15, 17, "a certain loss beside the base: do not use it"),
    ],
)
def test_the_verdict_is_on_the_base_and_on_the_prompt(prompted, adapted, verdict):
    def answers(right):
        return [
            QuestionRollouts(n, f"How {'a' * n}?", "1", 9, (Solution((1,), n < right),)) for n in range(60)
        ]

    learned = LearnedNumbers("code", "basis", 13, 240, 0.1, paired_difference(30, 5, 5, 20))
    prompt = Candidate("an instruction", QuestionPrompt(system="Solve it."))
    held_out = HeldOutAnswers(answers(30), answers(prompted), answers(adapted))
    result = LearnResult("a/b", 60, 30, 0, learned, 300, prompt, [], 0, False, held_out, 1)
    assert result.verdict == verdict


MORE = [
    row | {"question": row["question"].replace("Tom", name)}
    for name in ("Tom", "Six", "Two", "Ann")
    for row in ROWS
]
SEARCH = ("--minutes", 1e5)


@pytest.mark.parametrize(
    ("held_out", "count"), [("0.3", 84), pytest.param("all", 144, marks=pytest.mark.exhaustive)]
)
def test_a_prompt_is_chosen_on_questions_that_none_is_measured_on(learn, tiny, tmp_path, held_out, count):
    facts = learn(*SEARCH, "--held-out", held_out, rows=MORE[:count])
    output = tmp_path / "adapter"
    assert f"best prompt: {facts['prompt']}" in facts["announced"]
    searched = {
        question
        for path in [*(output / ".prompts").iterdir(), output / ".pool.jsonl"]
        for question in asked(path)
    }
    measured = {*map(masked_beginning, asked(output / ".base.jsonl"))}
    assert len(searched) >= 32 and not measured & {*map(masked_beginning, searched)}
    # Without a prompt the context was a third: long questions were cut off, and right answers seemed gained.
    journals = (path.read_text().splitlines()[0] for path in output.rglob("*.jsonl"))
    heads = [json.loads(line) for line in journals]
    assert {head["rollouts"]["context"] for head in heads if "rollouts" in head} == {3 * 512 + 6}
    card = (output / "README.md").read_text()
    assert facts["prompt"] in card and "| base, best prompt |" in card and facts["verdict"] in card
    prompt = QuestionPrompt.read(output) if (output / "prompt.json").exists() else PLAIN
    with Engine(tiny, adapter=output / "adapter.gguf", context=512) as engine:
        tokens = engine.request("Tom has 9 pens.").tokens
        assert tokens == engine.request("Tom has 9 pens.", adapter="base", prompt=prompt).tokens


@pytest.mark.exhaustive
def test_a_killed_run_has_the_same_result(learn, tmp_path, monkeypatch):
    """Whenever it is killed: here in turn before each few of the entries of its journals."""
    expected, record, left = learn(*SEARCH, rows=MORE[:84], output="whole"), Journal.record, [0]

    def killed(*arguments: Any) -> None:
        if not left[0]:
            raise Interrupted
        left[0] -= 1
        record(*arguments)

    monkeypatch.setattr(Journal, "record", killed)
    kills = 0
    while True:
        left[0] = 131
        try:
            facts = learn(*SEARCH, rows=MORE[:84])
            break
        except Interrupted:
            kills += 1
    assert without_time(facts) == without_time(expected) and kills >= 3
    for name in ("adapter_model.safetensors", "adapter.gguf", "adapter_config.json"):
        assert (tmp_path / "adapter" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(RequestError, match=r"another run: max_tokens is 6 in the file, 5 now"):
        learn(*SEARCH, "--max-tokens", 5, rows=MORE[:84])


@pytest.mark.parametrize("gain", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_a_prompt_that_leaves_nothing_to_learn_is_measured_and_kept(learn, tmp_path, monkeypatch, gain):
    """The prompt alone does it then, or nothing does."""
    right = (lambda answer, row: answer.usage.prompt_tokens > 40) if gain else (lambda answer, row: False)
    monkeypatch.setattr(rollouts, "is_correct", right)
    if gain:
        facts = learn("--prompt", TEXT)
        assert [facts[f"right_{when}"] for when in ("before", "with_prompt", "after")] == [0, 10, 10]
        assert "code" not in facts and "peft" not in (tmp_path / "adapter/README.md").read_text()
    else:
        problem = r"0 of 26 questions have .* no certain gain: of 10 other questions the base has 0 right"
        with pytest.raises(RequestError, match=problem):
            learn("--prompt", TEXT)
    assert QuestionPrompt.read(tmp_path / "adapter") == QuestionPrompt(system=TEXT)


def test_nothing_is_measured_on_or_learned_from_the_examples_of_a_given_prompt(tmp_path):
    """With another seed, questions stood with their answers in the prompt that they were asked after."""
    shown = [(row["question"], str(row["answer"])) for row in ROWS[:4]]
    (tmp_path / "given.json").write_text(QuestionPrompt(examples=tuple(shown)).json)
    rows, options = write_rows(tmp_path / "rows.jsonl", ROWS), {"prompt": str(tmp_path / "given.json")}
    for held_out in ("0.4", "all"):
        request = LearnRequest(questions=rows, output=tmp_path, held_out=held_out, **options)
        sides = request.read_questions()
        assert not {row.question for side in sides for row in side} & {question for question, _ in shown}
        assert sum(map(len, sides)) == (64 if held_out == "all" else 32)


@pytest.mark.exhaustive
def test_a_model_that_thinks_learns_and_is_asked_without_a_thought(learn, base, tmp_path):
    """Its thoughts took all the tokens, and no question had a right solution."""
    folder, model = shutil.copytree(base("llama long"), tmp_path / "thinks"), tmp_path / "thinks.gguf"
    change_json(folder / "tokenizer_config.json", put("chat_template", value=TEMPLATES["qwen3"]))
    convert(Recipe(folder, model, Uniform("F32"), ids=("thinks", "")))
    facts = learn(model=model)
    assert "without a thought" in facts["announced"] and "no certain gain above" not in facts["verdict"]
    assert '{"think": false}' in (tmp_path / "adapter/README.md").read_text()
    with Engine(model, adapter=tmp_path / "adapter/adapter.gguf", context=512) as engine:
        plain, thinking = (engine.request("Tom?", adapter=name) for name in (None, "base"))
        assert engine.thinks and plain.tokens == engine.request("Tom?", adapter="base", think=False).tokens
        assert plain.options.thinks is False and thinking.tokens != plain.tokens


VARIATIONS = [{"question": f"What is {n} plus {n + 1}?", "answer": 2 * n + 1} for n in range(60)]


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        (("--numbers", 0), ROWS, "numbers must be an integer from 1 to 4096"),
        (("--minutes", "nan"), ROWS, "--minutes nan: must be above 0"),
        (("--minutes", 1e-6), ROWS, "--minutes 1e-06: too few for this machine: 10 questions of each kind"),
        (("--held-out", "1.5"), ROWS, "--held-out 1.5: must be a share between 0 and 1, a file, or all"),
        (("--held-out", 0.1), ROWS, "33 with 33 different beginnings are left to learn from and 3 with 3"),
        (("--prompt", "none.json"), ROWS, r"none\.json: No such file"),
        (("--prompt", "THINKS"), ROWS, "its `think` is true, but learning is without thoughts"),
        ((), VARIATIONS, "different beginnings"),
        (("--held-out", "ROWS"), VARIATIONS, r"60 with 1 different beginnings .* at least 10 beginnings"),
        ((), [*ROWS, {"question": "1?"}], "rows.jsonl: line 37: 'answer' is missing"),
        ((), [*ROWS, {"question": "1?", "answer": "many"}], "line 37: the answer is of the form text, and"),
    ],
)
def test_bad_input_is_one_line(learn, tmp_path, options, rows, message):
    (tmp_path / "THINKS.json").write_text(QuestionPrompt(think=True).json)
    files = {"THINKS": tmp_path / "THINKS.json", "ROWS": write_rows(tmp_path / "held-out.jsonl", ROWS)}
    with pytest.raises((FileError, RequestError), match=message) as error:
        learn(*(files.get(word, word) for word in options), rows=rows)
    assert "\n" not in str(error.value) and not (tmp_path / "adapter/README.md").exists()


def test_too_little_time_for_enough_questions_names_the_minutes(learn, monkeypatch):
    """It named --prompt, which nobody had given."""
    plan = TimePlan(Speed(1, 1, 1, 1), questions=20, held_out=5, minutes=60)
    monkeypatch.setattr(learning, "plan_time", lambda *_, **__: plan)
    with pytest.raises(RequestError, match=r"--minutes 60\.0: leaves 5 questions to measure on: too few"):
        learn()


def test_the_folder_of_the_base_is_no_output(learn, tiny):
    with pytest.raises(OutputError, match="is the folder of the base"):
        learn(output=tiny.parent)


@pytest.mark.parametrize(
    ("right", "message"),
    [
        ("none", r"0 of 26 questions .*, 26 have no right one; .* give more questions, or easier questions"),
        ("3 p", r"[1-9] of 26 questions have right and wrong solutions, \d+ have no right one"),
    ],
)
def test_too_few_questions_are_told_before_more_is_sampled(learn, tmp_path, monkeypatch, right, message):
    """Those with right and wrong solutions were counted twice, and as never right."""
    by_chance = rollouts.is_correct
    monkeypatch.setattr(
        rollouts, "is_correct", lambda answer, row: right in row.question and by_chance(answer, row)
    )
    with pytest.raises(RequestError, match=message):
        learn()
    assert not (tmp_path / "adapter/.rollouts-2.jsonl").exists()


def test_a_damaged_journal_is_one_line(learn, tmp_path):
    learn()
    for name in (".scores.jsonl", ".learn.jsonl"):
        journal = tmp_path / "adapter" / name
        for entry in ('{"questions": "many", "scores": [["x"]]}', "{}"):
            journal.write_text(journal.read_text().splitlines()[0] + f"\n{entry}\n")
            with pytest.raises(FileError, match=name):
                learn()


def test_a_file_to_measure_on_has_no_near_duplicates_in_training(tmp_path):
    rows, held_out = (
        write_rows(tmp_path / name, some) for name, some in (("a", ROWS), ("b", [*ROWS[:10], ROWS[0]]))
    )
    training, held = LearnRequest(questions=rows, output=tmp_path, held_out=str(held_out)).read_questions()
    assert (len(training), len(held)) == (26, 10)
