"""Rollouts: what the file holds, resumption, and the weights of its solutions."""

import json
from dataclasses import replace

import pytest
from thirteen.errors import FileError, RequestError
from thirteen.files.journal import RecordJournal
from thirteen.learn.rollouts import (
    ROLLOUTS,
    QuestionRollouts,
    RolloutSettings,
    Solution,
    advantage_rows,
    is_correct,
    sample_rollouts,
)
from thirteen.models.rows import TrainingRow
from thirteen.runtime.answer import StopReason
from thirteen.runtime.batch.reproducible_batches import BatchJob
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.options import Options

ROWS = [TrainingRow(f"What is {n} and {n}?", "", str(2 * n)) for n in range(30)]
SETTINGS = RolloutSettings(solutions=4, options=Options(temperature=0.7, max_tokens=8))


def test_the_tokens_are_those_of_the_answers(tiny, tmp_path):
    job = BatchJob(tiny, None, SETTINGS, threads=1)
    path = tmp_path / "rollouts.jsonl"
    sample_rollouts(job, ROWS[:5], path)
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    with Engine(tiny, threads=1) as engine:
        answer = replace(engine.answer("1?", max_tokens=4), value="14", stop_reason=StopReason.END)
        for entry in entries:
            assert entry["prompt_tokens"] == len(engine.request(entry["question"]).tokens)
            assert len({tuple(one["tokens"]) for one in entry["solutions"]}) > 1
            for *tokens, last in (one["tokens"] for one in entry["solutions"]):
                assert len(tokens) == 7 or engine.model.is_eog(last)
                assert not any(map(engine.model.is_eog, tokens))
        seeds = {SETTINGS.request(engine, row.question).options.seed for row in ROWS}
        assert len(seeds) == 30, "the random numbers of one question are not those of another"
    row = TrainingRow("7 + 7?", "", "14.0")
    assert is_correct(answer, row)
    for wrong in ({"stop_reason": StopReason.LENGTH}, {"value": None}, {"value": "1"}):
        assert not is_correct(replace(answer, **wrong), row)


def test_a_question_that_does_not_fit_is_an_error(tiny, tmp_path):
    long = TrainingRow("a" * 300, "", "1")
    job = BatchJob(tiny, None, SETTINGS, threads=1)
    found = sample_rollouts(job, [long, ROWS[0]], tmp_path / "two.jsonl")
    assert [bool(one.error) for one in found] == [True, False]
    with pytest.raises(RequestError, match=r"one\.jsonl: no question could be asked; the first: .*holds 256"):
        sample_rollouts(job, [long], tmp_path / "one.jsonl")


def test_a_question_of_another_number_is_refused(tmp_path):
    with RecordJournal(tmp_path / "file", {}, ROLLOUTS, QuestionRollouts, 2) as file:
        file.add(asked(1, "10"))
    with pytest.raises(FileError, match="file: unexpected record of question 1"):
        RecordJournal(tmp_path / "file", {}, ROLLOUTS, QuestionRollouts, 1)


def asked(number: int, outcomes: str, text: str = "") -> QuestionRollouts:
    """A question: "10" has a right and a wrong solution."""
    solutions = tuple(Solution((number, n), right == "1") for n, right in enumerate(outcomes))
    return QuestionRollouts(number, text or f"question {number}", "1", 20, solutions)


def test_advantages_are_the_outcome_less_that_of_the_others():
    for questions, weights in (
        ([asked(0, "10")], [1 / 2, -1 / 2]),
        ([asked(0, "1000"), asked(1, "11"), asked(2, "00")], [1 / 4, -1 / 12, -1 / 12, -1 / 12]),
        ([asked(0, "10", "one"), asked(1, "10", "one")], [1 / 6, -1 / 6, 1 / 6, -1 / 6]),  # asked again
    ):
        assert [row.weight for row in advantage_rows(questions)] == pytest.approx(weights)
