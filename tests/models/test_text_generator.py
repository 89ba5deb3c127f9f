"""Generated texts: the same on every machine, without unfilled fields, and with every word of the lists."""

import hashlib
import re
import subprocess
import sys

import pytest
from thirteen.errors import ThirteenError
from thirteen.models.text_generator.generate import generate_passages
from thirteen.models.text_generator.problems import PROBLEMS
from thirteen.models.text_generator.word_lists import word_list_passages
from thirteen.models.text_generator.words import plural, read_words, verb_forms
from thirteen.runtime.arithmetic.calculator import check_steps

LISTS = ("names", "surnames", "places", "things", "mass", "people", "units")
LISTS += ("adjectives", "abstract", "adverbs", "everyday", "abbreviations", "verbs")


def digest(texts: object) -> str:
    return hashlib.sha256(repr(texts).encode()).hexdigest()


def all_text(passages: list) -> str:
    return "\n".join(f"{passage.question or ''}\n{passage.text}" for passage in passages)


def test_texts_do_not_depend_on_the_order_of_hashes() -> None:
    code = (
        "from thirteen.models.text_generator.generate import generate_passages as g; import hashlib; "
        "print(hashlib.sha256(repr(g(300)).encode()).hexdigest())"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, **path()},
            capture_output=True,
            check=False,
        )
        assert done.stdout.decode().strip() == digest(generate_passages(300)), done.stderr


def path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(entry for entry in sys.path if entry)}


def test_seeds_give_different_texts_and_more_texts_begin_alike() -> None:
    assert generate_passages(50, 1) != generate_passages(50, 2)
    assert generate_passages(80)[:50] == generate_passages(50)


def test_every_template_fills_all_its_fields() -> None:
    passages = generate_passages(4 * len(PROBLEMS))
    for passage in passages:
        assert passage.text.strip()
        assert not re.search(
            r"\{(name|thing|unit|verb|adj|idea|adverb|mass|person|place)\w*\}", all_text([passage]), re.I
        )
    assert len({passage.text for passage in passages}) > 0.95 * len(passages)


def test_sums_in_the_solutions_are_right() -> None:
    steps = [step for passage in generate_passages(1_000) for step in check_steps(passage.text)]
    assert [step for step in steps if not step.ok] == []
    assert len(steps) > 300


def test_word_lists_contain_every_word() -> None:
    text = all_text(word_list_passages())
    words = {part for word in re.split(r"\s", text) for part in (word, word.rstrip(",:"))}
    missing = [entry for name in LISTS for entry in read_words(name) if entry.split("/")[0] not in words]
    assert missing == []


def test_generated_texts_use_nearly_every_thing_and_name() -> None:
    text = all_text(generate_passages(6_000))
    words = set(re.findall(r"[A-Za-z]+", text))
    for name, form in (("things", plural), ("names", str), ("verbs", lambda entry: entry.split("/")[0])):
        forms = {form(word) for word in read_words(name)}
        assert len(forms - words) < 0.01 * len(forms), sorted(forms - words)[:9]


def test_forms_of_words() -> None:
    nouns = ("apple", "box", "berry", "toy", "child", "knife", "fish", "bus")
    assert [*map(plural, nouns)] == [
        "apples",
        "boxes",
        "berries",
        "toys",
        "children",
        "knives",
        "fish",
        "buses",
    ]
    assert verb_forms("buy/bought/bought") == ("buy", "buys", "bought", "bought", "buying")
    assert verb_forms("stop") == ("stop", "stops", "stopped", "stopped", "stopping")
    assert verb_forms("carry") == ("carry", "carries", "carried", "carried", "carrying")
    assert verb_forms("bake") == ("bake", "bakes", "baked", "baked", "baking")
    assert verb_forms("cut/cut/cut")[-1] == "cutting"
    assert verb_forms("die") == ("die", "dies", "died", "died", "dying")
    assert verb_forms("answer")[2:] == ("answered", "answered", "answering")
    assert verb_forms("visit")[-1] == "visiting"
    assert verb_forms("agree")[2:] == ("agreed", "agreed", "agreeing")
    assert verb_forms("go/went/gone")[1] == "goes"


@pytest.mark.parametrize("count", [0, -1, 1_000_001])
def test_counts_out_of_range_are_refused(count: int) -> None:
    with pytest.raises(ThirteenError, match=f"{count} texts: must be from 1"):
        generate_passages(count)
