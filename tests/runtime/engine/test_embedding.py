"""Embeddings are those of sentence-transformers, whatever is computed at once; other uses are refused."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from thirteen.errors import FileError, PromptLengthError, RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine_options import EngineOptions
from thirteen.runtime.options import Request
from thirteen.runtime.plan import EnginePlan

from ..embedders import CONTEXT, oracle, tokenizer_of, write_embedder
from ..fakes import FIXED

# A word that the vocabulary lacks, names of control tokens, and texts of almost the whole context.
TEXTS = ["The cat sat on a mat.", "How many 日本 does she have?", "[SEP] is red [CLS]", "a " * 30, "y" * 60]
KINDS_AND_POOLINGS = [*(("bert", "cls"), ("bert", None), ("qwen3", "lasttoken"), ("gemma-embedding", "mean"))]


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedders")
    return lambda kind, pooling: write_embedder(folder / f"{kind}-{pooling}.gguf", kind, pooling)


@pytest.fixture(scope="module")
def bert(write):
    with Engine(write("bert", "mean"), untrusted=False, **FIXED) as engine:
        yield engine


@pytest.mark.parametrize(("kind", "pooling"), KINDS_AND_POOLINGS)
@pytest.mark.parametrize("options", [{}, {"flash_attention": False, "batch": 8}], ids=["flash", "standard"])
def test_embeddings_are_those_of_sentence_transformers(write, kind, pooling, options):
    with Engine(write(kind, pooling), **FIXED | options) as engine:
        tokens = engine.embedding_tokens(TEXTS)
        assert tokens == [tuple(one.ids) for one in tokenizer_of(kind).encode_batch(TEXTS)]
        found, expected = engine.embed(TEXTS), oracle(kind, pooling or "mean", tokens)
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        assert (found * expected).sum(axis=1).min() > 0.9999
        alone = np.concatenate([engine.embed([text]) for text in tokens])
        np.testing.assert_allclose(found, alone, atol=2e-3)


def test_dimensions_are_the_first_ones_with_a_length_of_one_again(bert):
    cut, short = bert.embed(TEXTS)[:, :16], bert.embed(TEXTS, 16)
    np.testing.assert_allclose(short, cut / np.linalg.norm(cut, axis=1, keepdims=True), rtol=1e-5)
    assert bert.embed([]).shape == (0, 64)


def test_a_long_text_is_refused_or_cut_before_its_last_token(bert):
    with pytest.raises(PromptLengthError, match=r"^text 1 has 102 tokens, .* holds 64; .*truncate"):
        bert.embed(["x", "x " * 100])
    (tokens,) = bert.embedding_tokens(["x " * 100], truncate=True)
    assert (len(tokens), tokens[0], tokens[-1]) == (CONTEXT, 101, 102)
    assert bert.embed(["x " * 100], truncate=True).shape == (1, 64)


def test_what_cannot_be_is_one_line(bert):
    for use, problem in (
        (lambda engine: engine.embed("x"), "give a list"),
        (lambda engine: engine.embed([[]]), "text 0 is empty"),
        (lambda engine: engine.embed([[1, 10**6]]), "token 1000000 is not one of"),
        (lambda engine: engine.embed(["x"], 65), "dimensions must be an integer from 1 to 64, not 65"),
        (lambda engine: engine.embed(["x"], adapter="a"), "adapter: 'a' is not one of base"),
        (lambda engine: engine.submit(Request((1,))), "made for embeddings"),
        (lambda engine: engine.prompt_logprobs([1, 2]), "made for embeddings"),
        (lambda engine: engine.encode_text("x"), "made for embeddings"),
    ):
        with pytest.raises(RequestError, match=problem):
            use(bert)
        assert bert.embed(["x"]).shape == (1, 64)


def test_a_model_that_continues_texts_says_what_to_take_and_one_that_ranks_is_refused(engine, write):
    with pytest.raises(RequestError, match=r"not made for .*Qwen3-Embedding"):
        engine.embed(["x"])
    with pytest.raises(FileError, match=r"'bert\.pooling_type' is 4: a model that ranks texts"):
        EnginePlan.make(write("bert", "rank"), EngineOptions())


def test_the_plan_is_for_embeddings_and_a_file_from_elsewhere_is_tried(write, records):
    plan = EnginePlan.make(write("bert", "mean"), EngineOptions(context=32))
    assert (plan.settings.context, plan.settings.batch, plan.settings.prefix_bytes) == (32, 32, 0)
    assert plan.memory.kv_bytes == 0
    assert "slots: 32\n" in str(plan)
    assert json.dumps(plan.json)
    with Engine(write("qwen3", "lasttoken"), untrusted=True, **FIXED) as engine:
        assert engine.embed(["x"]).shape == (1, 64)


def test_the_example_compares_texts_and_commands_that_answer_say_why_not(
    write, thirteen, tmp_path, monkeypatch, capsys
):
    """A random model stands for the one that it names."""
    (tmp_path / "nomic-embed-text-v1.5.Q8_0.gguf").symlink_to(write("bert", "mean"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "embed.py"), run_name="__main__")
    assert -1 <= float(capsys.readouterr().out) < 0.999
    done = thirteen("ask", write("bert", "mean"), "What is 1 + 1?")
    assert done.status == 2 and done.stderr.count("\n") == 1 and "made for embeddings" in done.stderr
