"""Near-duplicates of questions, and questions that are set aside."""

import pytest
from thirteen.errors import RequestError
from thirteen.learn.questions import masked_beginning, set_aside, without_near_duplicates
from thirteen.models.rows import TrainingRow


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("Paco had 26 cookies. How many are left?", "Ann Lee had 4 cookies. Who ate 9 of them?", True),
        ("Tom has three pens.", "Ida has 1,250.5 pens.", True),
        ("Tom has twenty-five pens.", "Ida has 1/2 of forty pens.", False),
        ("Tom has twenty-five pens.", "Ida has ninety pens.", True),
        ("Mr. Lee has 5 cows. How many legs?", "Mrs. Lee has 7 cows. How many ears?", True),
        ("Mr. Lee has 5 cows. How many?", "Mrs. Jones painted 7 walls. How many?", False),
        ("小明有5个苹果。他吃了2个。", "小明有7个苹果。还剩几个。", True),
        ("Paco had 26 cookies.", "Paco ate 26 cookies.", False),
        ("HOW MANY PENS HAS TOM? 3.", "how many pens has tom? 4.", True),
        ("Combien de caf\u00e9s ?", "Combien de cafe\u0301s ?", True),
        ("There are 3 pens. Tom has 2?", "There are 3 cups. Tom has 2?", False),
    ],
)
def test_near_duplicates_differ_in_numbers_and_names(one, other, near):
    assert (masked_beginning(one) == masked_beginning(other)) == near
    rows = [TrainingRow(one, "", "1")]
    assert without_near_duplicates(rows, [TrainingRow(other, "", "2")]) == ([] if near else rows)


def test_groups_are_set_aside_as_a_whole():
    things = ("pens", "cups", "hats", "figs", "nuts", "keys", "rings", "maps")
    rows = [TrainingRow(f"Tom has {n} {thing}. Why?", "", "1") for thing in things for n in range(5)]
    rest, held = set_aside(rows, 0.3, seed=1)
    beginnings = [{masked_beginning(row.question) for row in part} for part in (rest, held)]
    assert len(held) == 10 and len(rest) == 30 and not beginnings[0] & beginnings[1]
    assert beginnings[1] == {masked_beginning(row.question) for row in held[:5]}, "the first are no group"
    assert set_aside(rows, 0.3, seed=1) == (rest, held) != set_aside(rows, 0.3, seed=2)
    with pytest.raises(RequestError, match=r"held_out 0.1: the 40 questions have 8 different beginnings"):
        set_aside(rows, 0.1, seed=1)
