"""Next tokens after branching texts, against the exact logits of each text alone."""

from dataclasses import replace

import numpy as np
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.logits import sampling_logprobs
from thirteen.runtime.request import FULL_DISTRIBUTION, Sampling

from ..fixed_settings import FIXED
from ..gguf_adapters import write_lora

OPTIONS = FIXED | {"context": 128, "slots": 4, "batch": 64, "prefix_bytes": 0, "untrusted": False}


@pytest.fixture(scope="module")
def engine(tiny):
    with Engine(tiny, **OPTIONS) as engine:
        yield engine


def expected(engine, text, tokens, temperature=1.0):
    logits = engine.logits(text)[-1].astype(np.float64) / temperature
    logits -= logits.max()
    return (logits - np.log(np.exp(logits).sum()))[list(tokens)].tolist()


def tree(random, begin, *shape):
    """Texts in the order of a walk: (tokens to go back, tokens to add) for each."""
    text, found = list(begin), []
    for back, add in shape:
        text = [*text[: len(text) - back], *random.integers(0, 250, add).tolist()]
        found.append((tuple(text), tuple(random.integers(0, 250, random.integers(1, 4)).tolist())))
    return found


@pytest.mark.parametrize("shared", [0, 20])
def test_they_follow_from_the_logits(engine, shared):
    """Trees of several sizes, one with a text of more than a batch, and one that repeats a text."""
    random = np.random.default_rng(3)
    begin = random.integers(0, 250, shared).tolist()
    trees = [
        tree(random, begin, (0, 5), (0, 3), (2, 4), (1, 1), (6, 2)),
        tree(random, begin, (0, 100), (50, 3)),
        tree(random, begin, (0, 1)),
        tree(random, begin, (0, 7), (0, 0), (0, 1), (8, 9)),
        *(tree(random, begin, (0, n), (1, 2)) for n in range(2, 9)),
    ]
    found = engine.next_logprobs(trees)
    for texts, scores in zip(trees, found, strict=True):
        for (text, tokens), score in zip(texts, scores, strict=True):
            assert score == pytest.approx(expected(engine, text, tokens), abs=0.05)  # keys in float16
    assert engine.next_logprobs(trees) == found


def test_the_order_of_the_texts_does_not_matter_and_no_tree_is_a_tree(engine):
    texts = tree(np.random.default_rng(4), [], (0, 6), (0, 3), (3, 4))
    (forward,), (back,) = engine.next_logprobs([texts]), engine.next_logprobs([texts[::-1]])
    for one, other in zip(forward, back[::-1], strict=True):
        assert one == pytest.approx(other, abs=0.02)
    assert engine.next_logprobs([]) == [] and engine.next_logprobs([[], texts])[0] == []


def test_the_temperature_divides_the_logits(engine):
    text, tokens = (1, 2, 3), (4, 5)
    found = engine.next_logprobs([[(text, tokens)]], sampling=replace(FULL_DISTRIBUTION, temperature=0.5))
    assert found[0][0] == pytest.approx(expected(engine, text, tokens, 0.5), abs=0.05)
    assert found != engine.next_logprobs([[(text, tokens)]])


def test_the_cut_offs_count(engine):
    text, tokens, sampling = (1, 2, 3), tuple(range(250)), Sampling(1.0, top_k=2)
    ((found,),) = engine.next_logprobs([[(text, tokens)]], sampling=sampling)
    assert found == pytest.approx(sampling_logprobs(engine.logits(text)[-1], tokens, sampling), abs=0.05)
    assert max(found) > max(engine.next_logprobs([[(text, tokens)]])[0][0]) + 0.01
    with pytest.raises(RequestError, match="the temperature must be above 0"):
        engine.next_logprobs([[(text, tokens)]], sampling=Sampling())


def test_an_adapter_counts(tiny, engine, tmp_path):
    lora = write_lora(tmp_path / "lora.gguf", 1)
    texts = [[((1, 2, 3), (4, 5))]]
    with Engine(tiny, adapters={"other": lora}, **OPTIONS) as adapted:
        assert adapted.next_logprobs(texts) == engine.next_logprobs(texts)
        assert adapted.next_logprobs(texts, "other") != engine.next_logprobs(texts)
        with pytest.raises(RequestError, match="adapter: 'none'"):
            adapted.next_logprobs(texts, "none")


@pytest.mark.parametrize(
    "branch", [((), (1,)), ((1,), ()), ((1,) * 129, (1,)), ((9999,), (1,)), ((1,), (9999,))]
)
def test_invalid_texts_are_refused(engine, branch):
    with pytest.raises(RequestError):
        engine.next_logprobs([[((1,), (2,)), branch]])
    assert engine.next_logprobs([[((1,), (2,))]])  # the engine is still usable
