"""A trimmed file recognizes a text in a dropped script by its tokens alone."""

# ruff: noqa: RUF001 - letters of other scripts look alike

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.pipeline import convert
from thirteen.runtime.foreign_text import FOREIGN_SHARE_MAX, foreign_share
from thirteen.runtime.llama.model import Model

from ..commands import Commands
from ..convert.source.vocabularies import save_published
from ..convert.vocabulary.kept_lists import closed_list, tables_of

pytestmark = pytest.mark.slow

FOREIGN = {
    "Russian": "Сколько будет двенадцать умножить на тринадцать?",
    "Greek": "Πόσο κάνει δώδεκα επί δεκατρία;",
    "Hebrew": "כמה זה שתים עשרה כפול שלוש עשרה?",
    "Arabic": "كم يساوي اثنا عشر ضرب ثلاثة عشر؟",
    "Hindi": "बारह गुणा तेरह कितना होता है?",
    "Thai": "สิบสองคูณสิบสามเท่ากับเท่าไร",
    "Chinese": "十二乘以十三等于多少？小明有三个苹果，又买了五个。",
    "Japanese": "じゅうに かける じゅうさん は いくつですか。",
    "Korean": "십이 곱하기 십삼은 얼마입니까?",
    "Georgian": "რამდენია თორმეტჯერ ცამეტი?",
    "Russian with an English name": "Сколько яблок осталось у Tom после обеда?",
}
FAMILIAR = {
    "English": "What is twelve times thirteen? Tom has 5 apples.",
    "German": "Wie viel ist zwölf mal dreizehn? Überprüfe das größte Maß.",
    "French": "Combien font douze fois treize, s'il vous plaît ? Où est l'élève ?",
    "Vietnamese": "Mười hai nhân mười ba bằng bao nhiêu?",
    "a formula": "Solve x + y = z for α = 3 and β = 4, π ≈ 3.14, √2 ≤ 1.5, ∑ x² → ∞.",
    "numbers": "12 * 13 = ? 1,234.56 € and £3 — 50 %",
    "emoji": "🎉🎉🎉 3 + 4? 😀😀",
    "an English question about a Russian word": "What does the word привет mean in English, please?",
    "nothing": "",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Model]]:
    """Qwen2.5's vocabulary: all of it, and the tokens in ASCII with a few letters of two bytes."""
    folder = tmp_path_factory.mktemp("qwen")
    save_published("qwen2", folder)
    convert(folder, folder / "full.gguf", quantization="F32")
    tables = tables_of(folder)
    latin = [i for i, text in enumerate(tables.tokens) if text.replace("Ġ", "").isascii()]
    # Tokens of one letter of two bytes, which a list often keeps as other tokens are built from them.
    letters = [tables.ids[name] for name in ("Ð¸", "Ð°", "Ð¾", "ĠÐ²", "×Ļ", "Î±") if name in tables.ids]
    kept = closed_list(tables, [*latin, *letters])
    convert(folder, folder / "trimmed.gguf", quantization="F32", vocabulary=kept)
    with Model(folder / "full.gguf") as full, Model(folder / "trimmed.gguf") as trimmed:
        yield full, trimmed


@pytest.mark.parametrize("name", FOREIGN)
def test_another_script_is_foreign(models: tuple[Model, Model], name: str) -> None:
    full, trimmed = models
    share = trimmed.foreign_share(FOREIGN[name])
    assert share is not None and FOREIGN_SHARE_MAX < share <= 1
    assert full.foreign_share(FOREIGN[name]) is None


@pytest.mark.parametrize("name", FAMILIAR)
def test_latin_script_formulas_and_single_words_are_not(models: tuple[Model, Model], name: str) -> None:
    share = models[1].foreign_share(FAMILIAR[name])
    assert share is not None and share < FOREIGN_SHARE_MAX / 2 + 0.05


@pytest.mark.parametrize("name", ["Russian", "Arabic", "Chinese", "Korean", "Japanese"])
def test_a_vocabulary_that_has_the_script_finds_it_familiar(models: tuple[Model, Model], name: str) -> None:
    text, full = FOREIGN[name], models[0]
    tokens = full.tokenize(text, special=False, bos=False)
    assert foreign_share(text, tokens, full.token_to_piece) < FOREIGN_SHARE_MAX / 2


@given(text=st.text(max_size=40))
def test_any_text_has_a_share(models: tuple[Model, Model], text: str) -> None:
    share = models[1].foreign_share(text)
    assert share is not None and 0 <= share <= 1


def test_ask_says_so_in_one_line(models: tuple[Model, Model]) -> None:
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
