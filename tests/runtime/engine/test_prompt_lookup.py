"""Drafts: what is guessed, and that no text, end or count depends on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.runner import PromptLookup
from thirteen.runtime.grammar import from_regex
from thirteen.runtime.native.ik_llama_library import installed
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.request import Request, Sampling

DIGITS = {ord(digit): 50.0 for digit in "0123456789"}
COUNTED = {
    "logit_bias": {**DIGITS, ord("="): 60},
    "frequency_penalty": 100,
}  # the calculator inserts a result
OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_tokens": 1},
    {"max_tokens": 5},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 1.0, "seed": 4, "repeat_penalty": 1.5},
    {"temperature": 1.0, "seed": 5, "stop": ["a", "e", "1"]},
    {"temperature": 1.0, "seed": 6, "grammar": from_regex("(yes|no|maybe){2,5}!")},
    COUNTED,
]


def test_what_followed_the_last_two_tokens():
    lookup = PromptLookup([1, 2, 3, 4, 1, 2])
    assert lookup.draft([], 2) == (3, 4) and lookup.draft([], 9) == (3, 4, 1, 2)
    assert lookup.draft([5], 2) == () and lookup.draft([5, 1, 2], 3) == (5, 1, 2)
    assert lookup.draft([5, 1, 2], 0) == lookup.draft([5, 1, 2], -1) == ()
    assert PromptLookup([]).draft([7], 2) == PromptLookup([7]).draft([], 2) == ()


def test_only_a_library_for_which_drafts_pay_has_rows_for_them():
    usual = Settings(128, 1, 64, threads=1, flash_attention=False)
    assert usual.outputs == 1
    assert Settings(128, 1, 64, threads=1, flash_attention=False, library="ik").outputs == 3
    assert Settings(128, 1, 2, threads=1, flash_attention=False, library="ik").outputs == 2


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    if not installed():
        pytest.skip("ik_llama.cpp is not installed")
    with Engine(tiny, library="ik", threads=1, context=128, slots=1) as engine:
        yield engine


@pytest.mark.slow
@pytest.mark.parametrize("draft", ["found", "right", "wrong", "half right"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_no_text_depends_on_drafts(engine, monkeypatch, options, draft):
    request = engine.request("7 * 8 =", **{"max_tokens": 24} | options)

    def answer() -> tuple[Any, ...]:
        handle = engine.submit(request)
        tokens = [token for piece in handle for token in piece.tokens]
        return tokens, handle.answer().text, handle.answer().stop_reason, handle.answer().usage.sampled_tokens

    monkeypatch.setattr(engine._runner, "_draft_tokens", 0)
    plain = answer()
    tokens = plain[0]
    monkeypatch.setattr(engine._runner, "_draft_tokens", 2)
    context, steps = engine._runner._context, []
    decode = context.decode
    monkeypatch.setattr(context, "decode", lambda spans: steps.append(spans) or decode(spans))

    def known(_: PromptLookup, output: list[int], count: int) -> tuple[int, ...]:
        right = tokens[len(output) :][:count]
        wrong = [token ^ 1 for token in right]
        return tuple({"right": right, "wrong": wrong}.get(draft, right[:1] + wrong[1:]))

    if draft != "found":
        monkeypatch.setattr(PromptLookup, "draft", known)
    assert answer() == plain
    assert all(span.rows <= min(3, request.max_tokens) for [span] in steps)
    if draft == "right" and len(tokens) == plain[3] == 24:
        assert len(steps) <= 9


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_drafts_fit_the_smallest_batches(tiny: Path, batch: int):
    if not installed():
        pytest.skip("ik_llama.cpp is not installed")
    always_a = Sampling(logit_bias={ord("a"): 100})
    with Engine(tiny, library="ik", threads=1, context=128, slots=1, batch=batch) as engine:
        assert engine.submit(Request(tuple(b"xabcx"), 8, always_a)).answer().text == 8 * "a"
