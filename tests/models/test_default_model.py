"""The default model in the cache: one file for each base that is embedded."""

import pytest
from thirteen.convert import convert as conversion
from thirteen.convert.recipe import Recipe
from thirteen.models.catalogue import catalogue
from thirteen.models.embedded import default_model, is_default_model, is_short_sum
from thirteen.runtime.answer import find_calibration
from thirteen.runtime.engine.engine import Engine


def test_a_file_of_another_base_is_not_served(tmp_path, monkeypatch):
    """The name had no hash of the base: a new package was served from the file of the old one."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    older = tmp_path / "embedded/01234567/smollm2-135m.gguf"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"of an older package")
    made: list[Recipe] = []

    def convert(recipe: Recipe, *_: object) -> None:
        assert recipe.output is not None
        recipe.output.write_bytes(b"GGUF")
        made.append(recipe)

    monkeypatch.setattr(conversion, "convert", convert)
    path = default_model(None)
    assert path.read_bytes() == b"GGUF" and path.name == older.name
    assert path.parent.name == catalogue().embedded.sha256[:8]
    assert default_model(None) == path and len(made) == 1, "it is converted once"
    default = default_model()
    adapter = made[1].adapter
    assert default.name == "smollm2-135m-sums.gguf" and adapter and adapter.name == "smollm2-135m-sums-840"
    assert is_default_model(path) and is_default_model(default) and not is_default_model(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("question", "is_short"),
    [
        ("What is 7 * 8?", True),
        ("Tom has 12 eggs and buys 6 more. How many does he have?", True),
        ("What is 17 % of 240?", False),
        ("What is the capital of France?", False),
        ("I have 3 apples, buy 4 and eat 2. How many are left?", False),
        ("word " * 60 + "3 + 4", False),
    ],
)
def test_a_short_sum_is_one_step_with_two_numbers(question, is_short):
    assert is_short_sum(question) is is_short


SUMS = ("What is 7 * 8?", "Tom has 12 eggs and buys 6 more. How many does he have?", "How much is 513 / 19?")


@pytest.mark.exhaustive
def test_its_single_answers_have_a_confidence_of_their_own():
    """Each said 52 % or 37 %."""
    with Engine(default_model(), context=512, flash_attention=True, kv="f16", threads=1) as engine:
        answers = engine.answers(SUMS)
        assert len({answer.confidence for answer in answers}) == len(SUMS)
        assert all(answer.confidence and 0 < answer.confidence < 1 for answer in answers)
        unsure = engine.answer(SUMS[0], min_confidence=0.999)
        assert (unsure.value, unsure.sure) == (None, False) and unsure.confidence
        sampled = engine.answer(SUMS[0], temperature=0.7)
        assert sampled.value and sampled.confidence is None and sampled.sure
        assert not engine.answer(SUMS[0], temperature=0.7, min_confidence=0.1).sure


def test_a_calibration_is_that_of_the_shipped_model():
    known = catalogue()
    metadata = {"thirteen.base.sha256": known.embedded.sha256, "general.file_type": 7}
    adapted = metadata | {"thirteen.adapter.sha256": known.adapters["smollm2-135m-sums-840"].sha256}
    found = find_calibration(adapted)
    assert (
        found and find_calibration(metadata) is find_calibration(adapted | {"general.file_type": 2}) is None
    )
    _, *weights = found
    assert min(weights) > 0, "likelier tokens and a verified answer make it surer"
