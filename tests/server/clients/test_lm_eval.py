"""lm-evaluation-harness: its log-likelihoods are the engine's."""

import pytest
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform

from ..serving import open_engine, serve_engine

pytestmark = pytest.mark.slow

CITIES = ("Paris", "Rome", "Zürich")


@pytest.mark.parametrize("as_tokens", [True, False])
def test_log_likelihoods_are_the_engines(base, as_tokens, tmp_path):
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    path, tokenizer, question = tmp_path / "model.gguf", base("llama"), "The capital of Japan is"
    convert(Recipe(tokenizer, path, Uniform("F32")))
    with open_engine(path, context=256) as engine, serve_engine(engine) as server:
        client = LocalCompletionsAPI(
            f"{server.url}/v1/completions",
            "huggingface",
            model="model",
            tokenizer=str(tokenizer),
            tokenized_requests=as_tokens,
            max_retries=1,
        )
        asked = [Instance("loglikelihood", {}, (question, f" {city}"), 0) for city in CITIES]
        found = client.loglikelihood(asked)
        context = engine.encode_text(question)
        for city, (log_likelihood, _) in zip(CITIES, found, strict=True):
            scores = engine.prompt_logprobs([*context, *engine.encode_text(f" {city}")])  # but of the first
            expected = sum(entry.logprob for entry in scores[len(context) - 1 :])
            assert log_likelihood == pytest.approx(expected, abs=0.05)
