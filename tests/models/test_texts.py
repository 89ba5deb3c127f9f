"""The bundled texts: format, disjoint sets, and right equations."""

import re

import pytest
from thirteen.models.passages import CALIBRATION, HELD_OUT, read_passages
from thirteen.runtime.arithmetic.equations import read_equations
from thirteen.runtime.arithmetic.final_answer import final_answer


@pytest.mark.parametrize(("path", "questions"), [(CALIBRATION, 95), (HELD_OUT, 30)])
def test_the_equations_of_the_texts_are_right_and_lead_to_the_answers(path, questions):
    steps = [(passage, read_equations(passage.text).steps) for passage in read_passages(path)]
    assert [step for _, found in steps for step in found if not step.ok] == []
    assert sum(len(found) for _, found in steps) >= 0.5 * questions
    solved = [passage for passage, _ in steps if passage.question is not None]
    # "54 thousand" is no value: its number alone would be another.
    assert all(final_answer(one.text) is not None or "thousand" in one.text for one in solved)


def test_the_sets_share_no_eight_consecutive_words():
    def word_runs(path) -> set[tuple[str, ...]]:
        found = set()
        for passage in read_passages(path):
            words = re.findall(r"\w+", f"{passage.question or ''} {passage.text}".lower())
            found |= {tuple(words[at : at + 8]) for at in range(len(words) - 7)}
        return found

    assert not word_runs(CALIBRATION) & word_runs(HELD_OUT)
