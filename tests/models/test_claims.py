"""Published figures: their values, and the fields that a report needs for a comparison."""

import re
from typing import get_args

import pytest
from thirteen.models.catalogue import catalogue
from thirteen.models.claims import ClaimKind, Side, claims

PUBLISHED = {
    ("llama-3.2-1b", "base", "gsm8k", "zero-shot", "8.6 %"),
    ("llama-3.2-1b", "adapted", "gsm8k", "zero-shot", "37.5 %"),
    ("llama-3.2-1b", "adapted", "gsm8k", "refined", "48.9 %"),
    ("llama-3.2-1b", "adapted", "svamp", "zero-shot", "58.2 %"),
    ("llama-3.2-1b", "adapted", "", "", "600 MB"),
    ("", "adapted", "", "", "negligible"),
    ("qwen2.5-7b", "base", "gsm8k", "zero-shot", "76.0 %"),
    ("qwen2.5-7b", "adapted", "gsm8k", "zero-shot", "91.0 %"),
    ("llama-3.2-1b", "base", "gsm8k", "8-shot", "44.4 %"),
}


def test_the_figures_are_the_published_ones():
    assert {(c.base, c.side, c.data, c.prompt, c.text) for c in claims()} == PUBLISHED
    assert len(claims()) == len(PUBLISHED)


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: f"{claim.what}, {claim.base}")
def test_a_claim_has_a_source_and_the_fields_of_its_kind(claim):
    assert re.fullmatch(r"https://[\w./-]+", claim.source.url) and claim.source.title
    assert claim.kind in get_args(ClaimKind) and claim.side in get_args(Side)
    if claim.kind == "accuracy":
        assert claim.data and claim.prompt and 0 < claim.figure < 1
    else:
        assert not claim.data and not claim.prompt
    if claim.base and not claim.base.endswith("7b"):
        assert claim.base in catalogue().bases
