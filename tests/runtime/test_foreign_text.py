"""A trimmed file recognizes a text in a dropped script by its tokens alone."""

# ruff: noqa: RUF001 - letters of other scripts look alike

from pathlib import Path

import pytest
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.runtime.foreign_text import FOREIGN_SHARE_MAX, foreign_share
from thirteen.runtime.llama.model import Model

from ..commands import Commands
from ..convert.source.vocabularies import save_published
from ..convert.vocabulary.kept_lists import closed_list, tables_of

FOREIGN = {
    "Russian": "Сколько будет двенадцать умножить на тринадцать?",
    "Arabic": "كم يساوي اثنا عشر ضرب ثلاثة عشر؟",
    "Hindi": "बारह गुणा तेरह कितना होता है?",
    "Chinese": "十二乘以十三等于多少？小明有三个苹果，又买了五个。",
    "Korean": "십이 곱하기 십삼은 얼마입니까?",
    "Russian with an English name": "Сколько яблок осталось у Tom после обеда?",
}
FAMILIAR = {
    "English": "What is twelve times thirteen? Tom has 5 apples.",
    "French": "Combien font douze fois treize, s'il vous plaît ? Où est l'élève ?",
    "Vietnamese": "Mười hai nhân mười ba bằng bao nhiêu?",
    "a formula": "Solve x + y = z for α = 3 and β = 4, π ≈ 3.14, √2 ≤ 1.5, ∑ x² → ∞.",
    "an English question about a Russian word": "What does the word привет mean in English, please?",
}


@pytest.mark.parametrize(
    ("pieces", "share"),
    [
        (["С", "к", "о", "л", "ь"], 1.0),  # a token for each letter, of two bytes
        (["Сколь", " x"], 0.0),  # tokens of several letters
        (["a", "b", "я", "б", "л", "о"], 4 / 6),
        (["x", "+", "π"], 0.0),  # a symbol
        ([], 0.0),
    ],
)
def test_letters_in_short_tokens_are_foreign(pieces, share):
    found = foreign_share("".join(pieces), range(len(pieces)), lambda token: pieces[token].encode())
    assert found == pytest.approx(share)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Qwen2.5's vocabulary: all of it, and the tokens in ASCII with a few letters of two bytes."""
    folder = tmp_path_factory.mktemp("qwen")
    save_published("qwen2", folder)
    convert(Recipe(folder, folder / "full.gguf", Uniform("F32")))
    tables = tables_of(folder)
    latin = [i for i, text in enumerate(tables.tokens) if text.replace("Ġ", "").isascii()]
    # Tokens of one letter of two bytes, which a list often keeps as other tokens are built from them.
    letters = [tables.ids[name] for name in ("Ð¸", "Ð°", "Ð¾", "ĠÐ²", "×Ļ", "Î±") if name in tables.ids]
    kept = closed_list(tables, [*latin, *letters])
    convert(Recipe(folder, folder / "trimmed.gguf", Uniform("F32"), vocabulary=kept))
    with Model(folder / "full.gguf") as full, Model(folder / "trimmed.gguf") as trimmed:
        yield full, trimmed


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FOREIGN)
def test_another_script_is_foreign(models, name):
    full, trimmed = models
    share = trimmed.foreign_share(FOREIGN[name])
    assert share is not None and FOREIGN_SHARE_MAX < share <= 1
    assert full.foreign_share(FOREIGN[name]) is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FAMILIAR)
def test_latin_script_formulas_and_single_words_are_not(models, name):
    share = models[1].foreign_share(FAMILIAR[name])
    assert share is not None and share < FOREIGN_SHARE_MAX / 2 + 0.05


@pytest.mark.exhaustive
def test_ask_says_so_in_one_line(models):
    path: Path = models[1].header.path
    with Commands() as thirteen:
        foreign = thirteen("ask", path, FOREIGN["Hindi"], "--max-tokens", 1)
        known = thirteen("ask", path, FAMILIAR["English"], "--max-tokens", 1)
        printed = thirteen("ask", path, FOREIGN["Hindi"], "--max-tokens", 1, "--json")
    assert (foreign.status, known.status, printed.status) == (0, 0, 0)
    (line,) = [line for line in foreign.stderr.splitlines() if "warning" in line]
    assert line.startswith(
        "warning: 100% of the question's letters are in a script that this file's vocabulary"
    )
    assert "warning" not in known.stderr
    assert '"foreign_share": 1.0' in printed.stdout
