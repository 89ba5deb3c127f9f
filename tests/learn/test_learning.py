"""`thirteen learn` from questions to a measured adapter; a tiny model, judged by chance."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from thirteen.cli.main import app
from thirteen.convert.adapter.short_code import decode_short_code
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.convert.source_ids import SourceIds
from thirteen.errors import FileError, OutputError, RequestError
from thirteen.files.journal import Journal
from thirteen.files.progress import Run
from thirteen.learn import sample_rollouts, time_plan, vote_labels
from thirteen.learn.learn_result import HeldOutAnswers
from thirteen.learn.time_plan import Speed, TimePlan, fitting_questions, plan_time
from thirteen.models.adapter import find_adapter
from thirteen.models.near_duplicates import masked_beginning
from thirteen.models.rows import TrainingRow
from thirteen.runtime.answer import Answer, VoteTally
from thirteen.runtime.batch.reproducible_batches import BatchResult
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from thirteen.workflows import learning
from thirteen.workflows.learn_request import LearnRequest
from thirteen.workflows.learning import PLAN_FILE, run_learn

from ..json_lines import write_rows
from ..runtime.thinking_templates import TEMPLATES

pytestmark = pytest.mark.slow

THINGS = (
    "pens cups hats figs nuts keys rings maps balls boats coins rods cars pots bags dogs cats cows eggs toys "
    "beds bees ants owls hens pigs cans jars lids logs nets oars pans pins rugs saws"
)
RUN = Run(threads=1)
ROWS = [{"question": f"Tom has 3 {one}.", "answer": 7} for one in THINGS.split()]


@pytest.fixture(scope="module")
def tiny(base, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    convert(Recipe(base("llama long"), path, Uniform("F32"), ids=SourceIds("tiny")))
    return path


@pytest.fixture
def env(tiny, tmp_path, monkeypatch) -> SimpleNamespace:
    """A request for the tiny model; a solution is right if the sum of its text's bytes is even."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(learning, "_PROMPT_TOKENS", 200)
    monkeypatch.setattr(sample_rollouts, "is_correct", lambda answer, row: sum(answer.text.encode()) % 2 == 0)
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    options: dict[str, Any] = {"numbers": 4, "max_tokens": 6}
    request = LearnRequest(model=str(tiny), questions=rows, output=tmp_path / "adapter", **options)
    return SimpleNamespace(request=request, tiny=tiny, folder=tmp_path)


def outcome(result: learning.LearnResult) -> object:
    """All but the time."""
    return replace(result, minutes=0)


def test_an_adapter_is_learned_and_measured(env, capsys):
    words = [env.tiny, env.request.questions, "-o", env.request.output, "--json"]
    words += ["--numbers", 4, "--max-tokens", 6, "--threads", 1]
    app(["learn", *map(str, words)], standalone_mode=False)
    shown = capsys.readouterr()
    facts = json.loads(shown.out)
    assert re.search(r"26 questions to learn from and 10 to measure on: about \d+ minutes", shown.err)
    assert (facts["questions"], facts["held_out"]) == (26, 10)
    assert facts["solutions"] == 8 * facts["sometimes_right"] >= 80
    low, high = facts["difference"]["low"], facts["difference"]["high"]
    certain = {"a certain gain": low > 0, "a certain loss: do not use it": high < 0}
    assert certain.get(facts["verdict"], low <= 0 <= high)
    assert facts["right_after"] - facts["right_before"] == facts["gained"] - facts["lost"]
    card = (env.request.output / "README.md").read_text()
    assert facts["verdict"] in card and facts["code"] in card
    assert np.abs(decode_short_code(facts["code"]).numbers).max() > 0
    lora = find_adapter(facts["code"]).lora(env.tiny)
    assert lora.stat().st_size > 0 < Path(facts["lora"]).stat().st_size


def test_all_questions_are_measured_on_in_folds(env):
    request, answered = replace(env.request, held_out="all"), []
    result = run_learn(request, run=RUN)
    assert result.asked == len(result.held_out.base) == len(result.held_out.adapted) == 36
    for number in range(1, 6):
        lines = (request.output / f".adapted-{number}.jsonl").read_text().splitlines()[1:]
        answered += [json.loads(line)["question"] for line in lines]
        assert len(lines) in (7, 8)
    assert sorted(answered) == sorted(row["question"] for row in ROWS)
    assert "from the other four" in (request.output / "README.md").read_text()
    assert outcome(run_learn(request, run=RUN)) == outcome(result)


@pytest.fixture
def searching(env, monkeypatch) -> LearnRequest:
    """A run that has time to search a prompt, on more questions."""
    monkeypatch.setattr(time_plan, "_FIRST_MIN", 2)
    monkeypatch.setattr(time_plan, "POOL", 4)
    rows = [
        {"question": f"{name} has 3 {one}.", "answer": 7}
        for name in ("Tom", "Six")
        for one in THINGS.split()[:24]
    ]
    return replace(env.request, questions=write_rows(env.folder / "more.jsonl", rows), minutes=1e5)


@pytest.mark.parametrize("held_out", ["0.3", "all"])
def test_a_prompt_is_chosen_on_questions_that_none_is_measured_on(searching, env, held_out):
    lines: list[str] = []
    request = replace(searching, held_out=held_out)
    result = run_learn(request, run=RUN, announce=lines.append)
    assert result.ranked[0] == result.prompt and f"best prompt: {result.prompt.text}" in lines
    asked = [
        json.loads(line)["question"]
        for path in [*(request.output / ".prompts").iterdir(), request.output / ".pool.jsonl"]
        for line in path.read_text().splitlines()[1:]
    ]
    assert len({*asked}) == result.searched
    # Without a prompt it was a third: long questions were cut off, and right answers seemed gained.
    journals = [path for path in request.output.rglob("*.jsonl") if path.name != PLAN_FILE]
    heads = [json.loads(path.read_text().splitlines()[0]) for path in journals]
    assert {head["rollouts"]["context"] for head in heads if "rollouts" in head} == {
        3 * learning._PROMPT_TOKENS + request.max_tokens
    }
    assert not {*map(masked_beginning, asked)} & {
        masked_beginning(one.question) for one in result.held_out.base
    }
    card = (request.output / "README.md").read_text()
    assert result.prompt.text in card and "| base, best prompt |" in card and result.verdict in card
    assert outcome(run_learn(request, run=RUN)) == outcome(result)
    prompt = result.prompt.prompt
    assert (request.output / "prompt.json").exists() == (prompt != PLAIN)
    with Engine(env.tiny, adapter=request.output / "adapter.gguf", context=512) as engine:
        asked_tokens = engine.request("Tom has 9 pens.").tokens
        assert asked_tokens == engine.request("Tom has 9 pens.", adapter="base", prompt=prompt).tokens
        assert (asked_tokens == engine.request("Tom has 9 pens.", adapter="base").tokens) == (prompt == PLAIN)


def test_a_prompt_with_which_all_is_right_is_measured_and_kept(env, monkeypatch):
    """There is nothing to learn then: the prompt alone does it."""
    monkeypatch.setattr(sample_rollouts, "is_correct", lambda answer, row: answer.usage.prompt_tokens > 40)
    request = replace(env.request, prompt="Answer in one word, in this house style.")
    result = run_learn(request, run=RUN)
    assert not result.learned and result.held_out.right == [0, 10, 10]
    card, prompt = (request.output / "README.md").read_text(), QuestionPrompt.read(request.output)
    assert result.verdict in card and "adapter" not in card.partition("## What")[2]
    assert "Of 26 questions that were asked with the prompt, 0 have right and wrong solutions," in card
    assert "peft" not in card
    assert prompt == QuestionPrompt(system=request.prompt)
    assert outcome(run_learn(request, run=RUN)) == outcome(result)
    with pytest.raises(OutputError, match=r"prompt\.json, which would be overwritten: choose another"):
        (request.output / PLAN_FILE).unlink()
        run_learn(request, run=RUN)


def test_a_prompt_without_a_certain_gain_is_kept_and_the_problem_is_told(env, monkeypatch):
    monkeypatch.setattr(sample_rollouts, "is_correct", lambda answer, row: False)
    request = replace(env.request, prompt="Answer in one word, in this house style.")
    problem = r"0 of 26 questions have .* no certain gain: of 10 other questions the base has 0 right"
    with pytest.raises(RequestError, match=problem):
        run_learn(request, run=RUN)
    assert QuestionPrompt.read(request.output) == QuestionPrompt(system=request.prompt)


def test_a_given_prompt_goes_with_the_adapter_and_into_a_file(env):
    """Through the folder, a GGUF, and the chat template of a file, whose weights stay as they are."""
    text = "Answer in one word."
    result = run_learn(replace(env.request, prompt=text), run=RUN)
    assert result.prompt.prompt == QuestionPrompt(system=text) and not result.ranked
    assert "thirteen ask" in (card := (env.request.output / "README.md").read_text()) and text in card
    written = env.folder / "prompted.gguf"
    words = ["convert", env.tiny, "--type", "same", "--prompt", env.request.output, "-o", written]
    app([*map(str, words)], standalone_mode=False)
    lora = find_adapter(str(env.request.output)).lora(env.tiny)
    with Engine(env.tiny, adapter=lora) as adapted, Engine(written) as prompted:
        assert adapted.request("12 pens?").tokens == prompted.request("12 pens?").tokens
        assert (
            adapted.request("12 pens?").tokens
            == adapted.request("12 pens?", system=text, adapter="base").tokens
        )
    again = run_learn(
        replace(env.request, prompt=str(env.request.output), output=env.folder / "again"), run=RUN
    )
    assert again.learned == result.learned
    with pytest.raises(FileError, match=r"none\.json: No such file"):
        run_learn(replace(env.request, prompt="none.json"), run=RUN)


def test_nothing_is_measured_on_or_learned_from_the_examples_of_a_given_prompt(env):
    """With another seed, questions stood with their answers in the prompt that they were asked after."""
    shown = [(row["question"], str(row["answer"])) for row in ROWS[:4]]
    path = env.folder / "given.json"
    path.write_text(QuestionPrompt(examples=tuple(shown)).json)
    for held_out in ("0.4", "all"):
        sides = replace(env.request, prompt=str(path), held_out=held_out).read_questions()
        assert not {row.question for side in sides for row in side} & {question for question, _ in shown}
        assert sum(map(len, sides)) == (64 if held_out == "all" else 32)


@pytest.mark.exhaustive
def test_a_model_that_thinks_learns_and_is_asked_without_a_thought(env, base):
    """Its thoughts took all the tokens, and no question had a right solution."""
    folder = shutil.copytree(base("llama long"), env.folder / "thinks")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    thinks = config | {"chat_template": TEMPLATES["qwen3"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(thinks))
    convert(Recipe(folder, env.folder / "thinks.gguf", Uniform("F32"), ids=SourceIds("thinks")))
    request, lines = replace(env.request, model=str(env.folder / "thinks.gguf")), []
    result = run_learn(request, run=RUN, announce=lines.append)
    assert (
        any("without a thought" in line for line in lines) and "no certain gain above" not in result.verdict
    )
    assert '{"think": false}' in (request.output / "README.md").read_text()
    with Engine(Path(request.model), adapter=request.output / "adapter.gguf", context=512) as engine:
        plain, thinking = (engine.request("Tom?", adapter=name) for name in (None, "base"))
        assert engine.thinks and plain.tokens == engine.request("Tom?", adapter="base", think=False).tokens
        assert plain.think_budget == 0 and thinking.tokens != plain.tokens
        assert engine.request("Tom?", think=True).tokens == thinking.tokens


def test_a_killed_run_has_the_same_result(searching, env, monkeypatch):
    """Whenever it is killed: here in turn before each few of the entries of its journals."""
    expected = outcome(run_learn(searching, run=RUN))
    output, append = env.folder / "again", Journal._append
    left = [0]

    def killed(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(*arguments)

    monkeypatch.setattr(Journal, "_append", killed)
    kills = 0
    while True:
        left[0] = 31
        try:
            result = run_learn(replace(searching, output=output), run=RUN)
            break
        except KeyboardInterrupt:
            kills += 1
    assert outcome(result) == expected and kills >= 3
    with pytest.raises(RequestError, match=r"another run: numbers is 4 in the file, 5 now"):
        run_learn(replace(searching, output=output, numbers=5), run=RUN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": 0}, "numbers 0: must be from 1 to 4096"),
        ({"minutes": float("nan")}, "minutes nan: must be above 0"),
        ({"held_out": "1.5"}, r"held_out 1.5: must be a share between 0 and 1, a file, or all"),
        ({"held_out": "nothing.jsonl"}, r"nothing.jsonl: No such file"),
        (
            {"held_out": "0.1"},
            "33 with 33 different beginnings are left to learn from and 3 with 3 to measure",
        ),
        ({"prompt": "THINKS"}, "its `think` is true, but learning is without thoughts"),
        ({"seed": -1}, "seed -1: must be from 0 to 4294967294"),
        ({"minutes": 1e-6}, "minutes 1e-06: too few for this machine: 10 questions of each kind take about"),
    ],
)
def test_bad_options_are_one_line(env, change, message):
    if change.get("prompt"):
        change = {"prompt": str(env.folder / "prompt.json")}
        (env.folder / "prompt.json").write_text(QuestionPrompt(think=True).json)
    with pytest.raises((FileError, RequestError), match=message):
        run_learn(replace(env.request, **change), run=RUN)


def test_the_folder_of_the_base_is_no_output(env):
    with pytest.raises(OutputError, match="is the folder of the base"):
        run_learn(replace(env.request, output=env.tiny.parent), run=RUN)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "1?"}', "rows.jsonl: line 37: 'answer' is missing"),
        (
            '{"question": "1?", "answer": "many"}',
            "rows.jsonl: line 37: the answer is of the form text, and number before: give each row",
        ),
        ('{"question": " ", "answer": 1}', "rows.jsonl: line 37: 'question' must be a non-empty string"),
    ],
)
def test_bad_rows_are_one_line(env, line, message):
    with env.request.questions.open("a") as file:
        file.write(line)
    with pytest.raises(FileError, match=message):
        run_learn(env.request, run=RUN)
    assert not env.request.output.exists()


def test_questions_that_are_never_partly_right_teach_nothing(env, monkeypatch):
    monkeypatch.setattr(sample_rollouts, "is_correct", lambda answer, row: False)
    advice = "0 of 26 questions have right and wrong solutions, 26 have no right one; .* easier questions"
    with pytest.raises(RequestError, match=advice):
        run_learn(env.request, run=RUN)


def test_too_few_questions_are_told_before_more_is_sampled(env, monkeypatch):
    """Those with right and wrong solutions were counted twice, and as never right."""

    def is_correct(answer: Answer, row: TrainingRow) -> bool:
        return row.question.split()[-1][0] == "p" and sum(answer.text.encode()) % 2 == 0

    monkeypatch.setattr(sample_rollouts, "is_correct", is_correct)
    with pytest.raises(RequestError, match=r"(\d+) of 26 questions .*, (\d+) have no right one") as raised:
        run_learn(env.request, run=RUN)
    mixed, never = map(int, re.findall(r"(\d+) (?:of|have no)", str(raised.value)))
    assert 0 < mixed <= 26 - never < 10 and "needed: give more questions, or easier" in str(raised.value)
    assert not (env.request.output / ".rollouts-2.jsonl").exists()
    monkeypatch.setattr(learning, "plan_time", lambda *_, **__: TimePlan(20, 10, 1.0))
    with pytest.raises(RequestError, match=r"of 20 questions .* needed: give more minutes, or easier"):
        run_learn(replace(env.request, output=env.folder / "fewer"), run=RUN)


@pytest.mark.parametrize("entry", ['{"plan": ["many", 1, 2]}', "{}"])
def test_a_damaged_journal_is_one_line(env, entry):
    run_learn(env.request, run=RUN)
    for name in (".learn.jsonl", ".scores.jsonl"):
        journal = env.request.output / name
        content = journal.read_text()
        journal.write_text(content.splitlines()[0] + f"\n{entry}\n")
        with pytest.raises(RequestError, match=rf"{name}: (line 2: not a plan|not the scores)"):
            run_learn(env.request, run=RUN)
        journal.write_text(content)


def test_variations_of_one_question_are_too_few(env):
    """Folds and intervals are over questions that begin differently; with one there were no numbers.

    Nor were those to measure on counted by their beginnings, so that one effect passed for many.
    """
    rows = [{"question": f"What is {n} plus {n + 1}?", "answer": 2 * n + 1} for n in range(60)]
    write_rows(env.request.questions, rows)
    held_out = write_rows(env.folder / "held-out.jsonl", ROWS)
    with pytest.raises(RequestError, match=r"60 with 1 different beginnings .* at least 10 beginnings each"):
        replace(env.request, held_out=str(held_out)).read_questions()
    other = replace(env.request, questions=held_out, held_out=str(env.request.questions))
    with pytest.raises(RequestError, match=r"36 with 36 different .* and 60 with 1 to measure on"):
        other.read_questions()


def test_a_file_to_measure_on_has_no_near_duplicates_in_training(env):
    held_out = write_rows(env.folder / "held-out.jsonl", [*ROWS[:10], ROWS[0]])
    training, held = replace(env.request, held_out=str(held_out)).read_questions()
    assert (len(training), len(held)) == (26, 10)


@pytest.mark.parametrize(("bf16", "gradient"), [(True, 1.0), (False, 1.8)])
def test_the_time_limits_the_questions(bf16, gradient, monkeypatch):
    monkeypatch.setattr(time_plan, "multiplies_bf16", lambda: bf16)
    speed = Speed(0.01, 0.0025, prompt_tokens=100, answer_tokens=192)  # a prompt takes as long as 25 tokens
    options: dict[str, Any] = {"questions": 100, "held_out": 40, "speed": speed}
    whole = plan_time(1e6, **options)
    half = plan_time(whole.minutes / 2, **options)
    assert (whole.questions, whole.held_out, half.questions, half.held_out) == (100, 40, 50, 20)
    tokens = 100 * (1.46 * (25 + 4 * 192) + 8 * 0.46 * 292 * gradient) + 80 * (25 + 192)
    assert whole.minutes == pytest.approx(tokens * 0.01 / 60)
    assert not whole.first
    search = plan_time(1e6, search=1, **options)
    assert (search.first, search.pool, search.searched) == (9, 24, 96)  # at most 100 questions
    answers = (9 * 36 + 24) * 217
    assert search.minutes == pytest.approx((tokens + 40 * 217 + answers) * 0.01 / 60)
    short = plan_time(whole.minutes, search=1, **options)  # a fifth of the time
    assert (short.first * 36 + 24) * 2.17 <= 0.2 * whole.minutes * 60 < ((short.first + 1) * 36 + 24) * 2.17
    folds = plan_time(1e6, search=0.5, **options)
    assert folds.searched <= 50 and not plan_time(whole.minutes / 3, search=1, **options).first


def test_a_longer_prompt_leaves_time_for_fewer_questions(monkeypatch):
    """Worked examples left a quarter of the questions, although all solutions share them."""
    monkeypatch.setattr(time_plan, "multiplies_bf16", lambda: True)
    speed = Speed(0.01, 0.0025, prompt_tokens=100, answer_tokens=192)
    question = 1.46 * (25 + 4 * 192) + 8 * 0.46 * 292
    minutes = (100 * question + 3 * 40 * 217) * 0.01 / 60 / 0.8  # just enough
    plan = TimePlan(100, 40, minutes)
    assert fitting_questions(minutes, plan, speed, 90, 13) == 100
    assert fitting_questions(minutes, plan, speed, 1100, 13) == round(100 - 13 * 1000 * 2 / question) == 88
    again = 1.46 * (275 + 4 * 192) + 8 * 0.46 * 1292
    assert fitting_questions(minutes, plan, speed, 1100, 1000) == round(100 * question / again) == 36
    assert fitting_questions(3 * minutes, plan, speed, 1100, 13) == 100


def votes(monkeypatch, agree):
    """Votes agree on 7 where `agree(question)` says so."""

    def agreed(result):
        return "7" if agree(result.number) else ""

    monkeypatch.setattr(vote_labels, "_agreed", agreed)


@pytest.fixture
def unanswered(env) -> LearnRequest:
    rows = [{"question": row["question"]} for row in ROWS]
    questions = write_rows(env.folder / "unanswered.jsonl", rows)
    return replace(env.request, questions=questions, without_answers=True, prompt="default")


def test_votes_take_the_place_of_answers(unanswered, monkeypatch):
    votes(monkeypatch, lambda number: number % 8)
    result = run_learn(replace(unanswered, held_out="0.4"), run=RUN)
    assert 10 <= len(result.held_out.base) < 14 and result.asked < 22
    assert {one.answer for one in result.held_out.base} == {"7"}
    card = (unanswered.output / "README.md").read_text()
    assert (
        "There were no answers to these questions" in card and "Right is here what the votes agree on" in card
    )
    assert outcome(run_learn(replace(unanswered, held_out="0.4"), run=RUN)) == outcome(result)


def test_learning_from_votes_stops_where_known_answers_fall(unanswered, env, monkeypatch):
    votes(monkeypatch, lambda number: True)
    known = write_rows(env.folder / "known.jsonl", ROWS[:12])
    request = replace(unanswered, held_out=str(known))
    right = [[12, 12, 11]]
    monkeypatch.setattr(HeldOutAnswers, "right", property(lambda _: right[0]))
    with pytest.raises(
        RequestError, match=r"of 12 questions with answers 12 were right before .* 11 after it"
    ):
        run_learn(request, run=RUN)
    assert not (env.request.output / "adapter.gguf").exists()
    right[0] = [12, 11, 11]
    result = run_learn(request, run=RUN)
    assert not result.votes_measure and (env.request.output / "adapter.gguf").exists()


def test_too_few_votes_and_no_answers_are_one_line(unanswered, monkeypatch):
    votes(monkeypatch, lambda number: number < 3)
    with pytest.raises(
        RequestError, match="votes agree on 3 of 26 questions to learn from and 3 of 10 to measure"
    ):
        run_learn(unanswered, run=RUN)
    with pytest.raises(FileError, match=r"line 1: 'answer' is missing"):
        run_learn(replace(unanswered, without_answers=False), run=RUN)


@pytest.mark.parametrize(
    ("votes", "ended", "agreed"),
    [({"18": 5, "17": 1}, 6, "18"), ({"18": 4, "17": 1}, 5, ""), ({"18": 4}, 5, ""), ({"18": 3}, 3, "18")],
)
def test_votes_agree_above_four_fifths(votes, ended, agreed):
    answer = SimpleNamespace(value="18", tally=VoteTally(10, ended, votes))
    assert vote_labels._agreed(BatchResult(0, answer=answer)) == agreed
    assert not vote_labels._agreed(BatchResult(0, answer=SimpleNamespace(value="18", tally=None)))
    assert not vote_labels._agreed(BatchResult(0, error="too long"))
