"""Probabilities of tokens over texts agree with the engine's exact logits, position by position."""

import numpy as np
import pytest
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.files.progress import Run
from thirteen.models.passages import Passage, tokenize_passages
from thirteen.models.vocabulary_choice import mean_probability
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.model import Model

PASSAGES = (
    Passage("The thin thing in the tin. " * 12),
    Passage("the 12", question="What is the thing?"),
    Passage("in"),
)


@pytest.fixture(scope="module")
def path(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("statistics") / "model.gguf"
    convert(Recipe(base("llama"), path, Uniform("F32")))
    return path


@pytest.fixture(scope="module")
def model(path):
    with Model(path) as model:
        yield model


@pytest.fixture(scope="module")
def expected(path, model):
    """Probabilities after each token of each passage, by the engine's exact logits."""
    with Engine(path) as engine:
        logits = [engine.logits(passage) for passage in tokenize_passages(model, PASSAGES)]
    return [
        (powers := np.exp(rows - rows.max(1, keepdims=True))) / powers.sum(1, keepdims=True)
        for rows in logits
    ]


def test_the_mean_is_over_all_positions(model, expected):
    mean = mean_probability(model, list(tokenize_passages(model, PASSAGES)), Run(1))
    assert mean.sum() == pytest.approx(1)
    np.testing.assert_allclose(mean, np.concatenate(expected).mean(0), rtol=0.02, atol=1e-6)
