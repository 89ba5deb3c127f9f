"""The default model in the cache: one file for each base that is embedded."""

from pathlib import Path

import pytest
from thirteen.convert import convert as conversion
from thirteen.convert.recipe import Recipe
from thirteen.models.catalogue import catalogue
from thirteen.workflows.default_model import default_model, is_default_model, is_short_sum


def test_a_file_of_another_base_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_short_sum_is_one_step_with_two_numbers(question: str, is_short: bool) -> None:
    assert is_short_sum(question) is is_short
