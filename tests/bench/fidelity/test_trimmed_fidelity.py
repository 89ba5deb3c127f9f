"""Fidelity of a trimmed file to a reference with all tokens, computed again with NumPy."""

import numpy as np
import pytest
from thirteen.bench.environment import ModelSource
from thirteen.bench.fidelity.fidelity import run_fidelity
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.runtime.engine.engine import Engine

from ... import checkpoints
from ...convert.vocabulary.kept_lists import closed_list, tables_of
from ...json_lines import write_rows

# Tokens: t+h, th+e, Ġ+the, i+n, Ġ+1. The list drops `in` and `Ġ1`.
TEXTS = [
    {"text": "in the inn, the thin thing"},
    {"question": "What is the sum of 1 and 1?", "solution": "In the end 1 and 1 is 2."},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    base = checkpoints.save_model(folder / "base", checkpoints.llama(max_position_embeddings=2048))
    kept = closed_list(tables_of(base), [261])
    convert(Recipe(base, folder / "full.gguf", Uniform("F32")))
    convert(Recipe(base, folder / "trimmed.gguf", Uniform("F32"), vocabulary=kept))
    write_rows(folder / "texts.jsonl", TEXTS)
    return {path.stem: path for path in folder.iterdir()}


def test_the_report_is_that_of_numpy(files):
    """The first text, with every dropped token replaced by its two bytes."""
    with Engine(files["full"], context=256, slots=1) as full, Engine(files["trimmed"], slots=1) as small:
        names = full.model.header.metadata["tokenizer.ggml.tokens"]
        ids = [names.index(name) for name in small.model.header.metadata["tokenizer.ggml.tokens"]]
        kls, outside, tops, kept, nlls, of_reference = [], [], [], [], [], []
        text = TEXTS[0]["text"]
        original, tokens = (e.model.tokenize(text, special=False, bos=True) for e in (full, small))
        pieces = [[names[token]] if token in ids else list(names[token]) for token in original]
        assert [small.model.token_to_piece(t) for t in tokens] == [
            piece.replace("Ġ", " ").encode() for part in pieces for piece in part
        ]
        expected = full.logits(original).astype(np.float64)
        found = small.logits(tokens).astype(np.float64)
        ends = np.cumsum([len(part) for part in pieces]) - 1
        for at in range(len(original) - 1):
            p = np.exp(expected[at]) / np.exp(expected[at]).sum()
            q = np.exp(found[ends[at]]) / np.exp(found[ends[at]]).sum()
            inside = p[ids] / p[ids].sum()
            kls.append(float((inside * np.log(inside / q)).sum()))
            outside.append(1 - p[ids].sum())
            tops.append(p.argmax() == ids[q.argmax()])
            kept.append(original[at + 1] in ids)
            of_reference.append(-np.log(p[original[at + 1]]))
            rows = range(ends[at], ends[at + 1])
            odds = [np.exp(found[row]) / np.exp(found[row]).sum() for row in rows]
            nlls.append(-sum(np.log(q[tokens[row + 1]]) for q, row in zip(odds, rows, strict=True)))
    assert min(kept) is False and max(outside) > 0
    models = {"reference": ModelSource(files["full"]), "shipped": ModelSource(files["trimmed"])}
    one = run_fidelity(models, data=files["texts"], tokens=len(kls), threads=1)
    assert one.positions == len(kls) and one.vocabulary is not None
    assert one.divergence.kl_mean.estimate == pytest.approx(np.mean(kls), rel=1e-6, abs=1e-12)
    assert one.divergence.kl_max == pytest.approx(max(kls), rel=1e-6)
    assert one.divergence.kl_p99 == pytest.approx(np.quantile(kls, 0.99), rel=1e-6)
    assert one.divergence.same_top.estimate == np.mean(tops)
    perplexities = [np.exp(np.mean(losses)) for losses in (nlls, of_reference)]
    assert one.divergence.perplexity.estimate == pytest.approx(perplexities[0], rel=1e-6)
    assert one.divergence.reference_perplexity.estimate == pytest.approx(perplexities[1], rel=1e-6)
    ratio = perplexities[0] / perplexities[1]
    assert one.divergence.perplexity_ratio.estimate == pytest.approx(ratio, rel=1e-6)
    assert one.vocabulary.outside.estimate == pytest.approx(np.mean(outside), rel=1e-6)
    assert one.vocabulary.unchanged.estimate == np.mean(kept)
    assert one.vocabulary.of == 272
