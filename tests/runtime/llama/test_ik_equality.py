"""ik_llama.cpp computes as llama.cpp does, for each architecture and type that runtime/defaults.py names.

Without a word, it could leave out parts of an adapter, overlook a sequence, or round more than llama.cpp.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.files.gguf.header import read_header
from thirteen.runtime.defaults import IK_ARCHITECTURES, IK_TYPES, ik_equals, main_type
from thirteen.runtime.llama.context import Context, Span, log_softmax
from thirteen.runtime.llama.ik_llama_library import installed
from thirteen.runtime.llama.model import LoraAdapter, Model
from thirteen.runtime.llama.settings import IK, LLAMA, Settings

from ... import checkpoints
from ..gguf_adapters import write_lora

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.torch,
    pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed"),
]

KL_MAX = 0.005  # nats, mean of many predictions: rounded activations cost 0.001
FEW_MAX, FEW = 0.05, 16  # of few predictions, which rounding may move by 0.01, and errors by more than 1
SAME_MAX = 0.001  # of one library after a copy or a cut: the batch has another shape, and rounds otherwise
EFFECT_MAX = 0.05  # share by which an adapter's effect may differ
PROBE, LONG, BATCH, WIDE = 64, 224, 128, 16  # tokens of a probe, of a long prompt, of a batch; sequences
TOKENS = tuple(np.random.default_rng(13).integers(1, 256, LONG + 1).tolist())
SETTINGS = Settings(LONG + 1, WIDE, BATCH, PROBE, threads=2)

Rows = list[NDArray[np.float32]]


def observe(path: Path, lora: Path, library: str) -> dict[str, Rows]:
    """Rows of logits by what was done, without the adapter and with it."""
    settings, found = replace(SETTINGS, library=library, flash_attention=library == LLAMA), dict[str, Rows]()
    with Model(path, library=library) as model, LoraAdapter(model, lora) as adapter:
        for name, one in (("base", None), ("adapted", adapter)):
            with Context(model, settings) as context:
                context.set_adapter(one)
                for what, rows in (*use_sequences(context), *change_adapters(context, one)):
                    found.setdefault(f"{name}: {what}", []).extend(rows)
    return found


def decode(context: Context, *spans: Span) -> Rows:
    return [context.logits_row(row).copy() for row in context.decode(spans)]


def use_sequences(context: Context) -> Iterator[tuple[str, Rows]]:
    """Several sequences at once, a long prompt in batches, a copy, and what is left after cuts."""

    def copy_beginnings(lengths: Sequence[int]) -> None:
        state = context.save(0)
        assert all(context.restore(slot, state, length) for slot, length in enumerate(lengths, 1))

    yield "probe", decode(context, Span(0, 0, TOKENS[:PROBE], PROBE))
    starts = [PROBE - slot for slot in range(WIDE)]
    copy_beginnings(starts[1:])
    for step in range(2):
        places = [start + step for start in starts]
        spans = [Span(slot, at, TOKENS[at : at + 1], 1) for slot, at in enumerate(places)]
        yield "16 sequences", decode(context, *spans)
    for slot in range(WIDE):
        context.clear(slot, 0 if slot else PROBE)
    for start in range(PROBE, LONG, BATCH):
        part = TOKENS[start : min(start + BATCH, LONG)]
        yield "long prompt", decode(context, Span(0, start, part, 1))
    copy_beginnings([LONG])
    yield "original", decode(context, Span(0, LONG, TOKENS[:1], 1))
    yield "copy", decode(context, Span(1, LONG, TOKENS[:1], 1))
    context.clear(0)
    context.clear(1, 8)
    yield "behind a sequence that has ended", decode(context, Span(1, 8, TOKENS[8:9], 1))
    yield "before the cut", decode(context, Span(0, 0, TOKENS[:PROBE], 1))
    context.clear(1, 4)
    yield "cut", decode(context, Span(1, 4, TOKENS[4:PROBE], 1))


def change_adapters(context: Context, adapter: LoraAdapter | None) -> Iterator[tuple[str, Rows]]:
    """Two sequences token by token, one with the adapter and one without."""
    for slot in range(2):
        context.clear(slot)
    for start, end in ((0, 16), (16, 17), (17, 18)):
        for slot, one in enumerate((adapter, None)):
            context.set_adapter(one)
            yield "changes of the adapter", decode(context, Span(slot, start, TOKENS[start:end], 1))


def divergence(expected: Rows, found: Rows) -> float:
    """KL divergence in nats, the mean over the rows."""
    theirs, ours = log_softmax(np.array(expected)), log_softmax(np.array(found))
    return float((np.exp(theirs) * (theirs - ours)).sum(-1).mean())


def problems(path: Path, lora: Path) -> Iterator[str]:
    theirs, ours = observe(path, lora, LLAMA), observe(path, lora, IK)
    for what, rows in theirs.items():
        if not (kl := divergence(rows, ours[what])) <= (KL_MAX if len(rows) >= FEW else FEW_MAX):
            yield f"{what}: {kl:.4f} nats"
    for name in ("base", "adapted"):
        for what, same in (("copy", "original"), ("cut", "before the cut")):
            if not (kl := divergence(ours[f"{name}: {same}"], ours[f"{name}: {what}"])) <= SAME_MAX:
                yield f"{name}: {what}, beside {same}: {kl:.4f} nats"
    effects = [divergence(rows["base: probe"], rows["adapted: probe"]) for rows in (theirs, ours)]
    if not abs(effects[1] / effects[0] - 1) <= EFFECT_MAX:
        yield f"effect of the adapter: {effects[1]:.4f} nats instead of {effects[0]:.4f}"


# Width, and that of the feed-forward network: whole blocks of all types, and odd numbers of 32.
SHAPES = {"wide": (256, 512), "odd": (288, 352)}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
BLOCKS_OF_256 = {kind for kind in IK_TYPES if GGML_QUANT_SIZES[kind][0] == 256}


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """base_of(family, shape): a checkpoint whose logits depend on all of it, but not much on rounding."""

    @cache
    def make(family: str, shape: str) -> Path:
        config = checkpoints.FAMILIES[family]()
        config.hidden_size, config.intermediate_size = SHAPES[shape]
        config.head_dim, config.sliding_window = config.hidden_size // 4, None
        return checkpoints.save_model(tmp_path_factory.mktemp("base"), config, spread=0.08)

    return make


def write_model(base: Path, kind: GGMLQuantizationType, folder: Path) -> tuple[Path, Path]:
    """Write a model, and an adapter of its layers that is large enough to change most predictions."""
    model = folder / "model.gguf"
    convert(Recipe(base, model, Uniform(kind.name)))
    header = read_header(model)
    matrices = {name: one.shape for name, one in header.tensors.items() if len(one.shape) == 2}
    del matrices["token_embd.weight"]
    lora = write_lora(folder / "lora.gguf", 7, matrices, header.metadata["general.architecture"], 0.15)
    return model, lora


@pytest.mark.parametrize("kind", sorted(IK_TYPES), ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_libraries_compute_the_same(family, shape, kind, base_of, tmp_path):
    if shape == "odd" and kind in BLOCKS_OF_256:
        pytest.skip("rows are no whole blocks")
    model, lora = write_model(base_of(family, shape), kind, tmp_path)
    header = read_header(model)
    assert ik_equals(header) and main_type(header) == kind
    assert header.metadata["general.architecture"] in IK_ARCHITECTURES
    assert [*problems(model, lora)] == []


@pytest.mark.parametrize(
    ("change", "kind"), [({"rope_parameters": checkpoints.LLAMA3_ROPE}, "Q4_K"), ({}, "Q4_1"), ({}, "Q5_1")]
)
def test_files_that_ik_computes_wrongly_are_left_to_llama_cpp(change, kind, tmp_path):
    """It ignored the factors of RoPE, and prompts of 32 tokens through odd rows of Q4_1 were noise."""
    config = checkpoints.llama(hidden_size=288 if kind != "Q4_K" else 256, head_dim=64, **change)
    base = checkpoints.save_model(tmp_path / "base", config, spread=0.08)
    model, lora = write_model(base, GGMLQuantizationType[kind], tmp_path)
    assert [*problems(model, lora)] and not ik_equals(read_header(model))
