"""An engine over ik_llama.cpp: it computes as llama.cpp does, whatever clients do."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.native.ik_llama_library import installed
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.plan.options import EngineOptions
from thirteen.runtime.request import Request, Sampling

from ...conftest import EXHAUSTIVE
from ..gguf_adapters import write_lora

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")]

ADAPTERS = ("a", "b")
OPTIONS = EngineOptions(threads=1, context=128, slots=4, prefix_bytes=1 << 20, queue=128)
PROMPTS = [tuple(f"Question {n}: what is {n} and {n + 1}? ".encode()) for n in range(8)]
TOKENS = 24


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: write_lora(folder / f"{name}.gguf", seed) for seed, name in enumerate(ADAPTERS)}


@pytest.fixture(scope="module")
def engine(tiny: Path, loras: dict[str, Path]) -> Iterator[Engine]:
    with Engine(tiny, adapters=loras, library="ik", **OPTIONS) as engine:
        yield engine


def tokens(handle: Handle) -> list[int]:
    return [token for piece in handle for token in piece.tokens]


def scores(engine: Engine, adapter: str) -> list[float]:
    """Log-probabilities of the tokens of a text, in nats."""
    return [one.logprob for one in engine.prompt_logprobs(PROMPTS[0], adapter=adapter)]


def greedy(engine: Engine, prompt: tuple[int, ...], adapter: str) -> list[int]:
    return tokens(engine.submit(Request(prompt, 2 * TOKENS, adapter=adapter, ignore_end=True)))


@pytest.mark.parametrize("adapter", ["base", *ADAPTERS])
def test_predictions_are_those_of_llama_cpp(
    engine: Engine, tiny: Path, loras: dict[str, Path], adapter: str
) -> None:
    with Engine(tiny, adapters=loras, library="llama.cpp", **OPTIONS) as plain:
        ours, theirs = (scores(one, adapter) for one in (engine, plain))
    assert (engine.plan.library, engine.plan.version) == ("ik", "ik-llama-cpp-python 0.1.5")
    assert np.abs(np.subtract(ours, theirs)).mean() < 0.02


def test_no_digit_follows_an_inserted_result(tiny: Path) -> None:
    """A greedy answer took the likeliest token, which made the calculator's result longer."""
    settings, digits = Settings(32, 1, 8, threads=1, flash_attention=False, library="ik"), 0
    with (
        Model(tiny, library="ik") as model,
        Context(model, settings) as context,
        Sampler(model, Sampling()) as sampler,
    ):
        for token in range(256):
            context.clear(0)
            [row] = context.decode([Span(0, 0, (token,), 1)])
            logits = context.logits_row(row).copy()
            digits += int(logits.argmax()) in model.digit_tokens
            logits[[*model.digit_tokens]] = -np.inf
            assert sampler.sample(context, row, no_digit=True) == logits.argmax()
    assert digits


def test_many_clients_get_the_text_of_one(engine: Engine) -> None:
    """Sequences end in any order and leave holes in the joint KV cache; clients leave."""
    random, texts = Random(13), dict[tuple[int, str], list[int]]()
    for number in range(len(PROMPTS)):
        for adapter in ("base", *ADAPTERS):
            texts[number, adapter] = greedy(engine, PROMPTS[number], adapter)
    wrong = 0
    requests, at_once = 2000 if EXHAUSTIVE else 100, 20
    for _ in range(requests // at_once):
        keys = random.choices(list(texts), k=at_once)
        lengths = [random.randint(1, 2 * TOKENS) for _ in keys]
        handles = engine.submit_all(
            [
                Request(PROMPTS[number], length, adapter=adapter, ignore_end=True)
                for (number, adapter), length in zip(keys, lengths, strict=True)
            ]
        )
        for handle in handles[::5]:
            handle.abort()
        kept = [at for at in range(at_once) if at % 5]
        wrong += sum(tokens(handles[at]) != texts[keys[at]][: lengths[at]] for at in kept)
    assert wrong <= requests // 100, "rounding depends on what is computed together"
    assert not engine.load.running


def test_a_full_cache_of_all_slots_is_computed(engine: Engine) -> None:
    prompts = [tuple(Random(seed).choices(range(1, 256), k=100)) for seed in range(8)]
    handles = engine.submit_all([Request(prompt, 28, ignore_end=True) for prompt in prompts])
    assert [len(handle.answer().text) > 0 for handle in handles] == [True] * 8


def test_votes_and_sampled_answers_are_reproducible(engine: Engine) -> None:
    sampled = Request(PROMPTS[0], TOKENS, Sampling(0.8, seed=5), ignore_end=True)
    assert engine.submit(sampled).answer().text == engine.submit(sampled).answer().text
    assert engine.answer("1 + 1?", effort="high", max_tokens=8).tally is not None


def test_an_adapter_that_is_swapped_in_is_proven_and_used(engine: Engine, tmp_path: Path) -> None:
    before = greedy(engine, PROMPTS[0], "base")
    engine.swap("c", write_lora(tmp_path / "c.gguf", seed=7))
    assert greedy(engine, PROMPTS[0], "c") != before == greedy(engine, PROMPTS[0], "base")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions(library="fast"), r"library must be one of llama\.cpp, ik or auto, not 'fast'"),
        (EngineOptions(library="ik", kv="bf16"), "library ik: .* KV cache in f16 alone; leave .* out"),
        (EngineOptions(library="ik", flash_attention=True), "library ik: .* standard attention"),
    ],
)
def test_what_the_library_does_not_do_is_refused(tiny: Path, options: EngineOptions, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Engine(tiny, **options)
