"""Fidelity from files to report, on small models: results are known, or computed again by NumPy."""

from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest
from thirteen.bench.environment import ModelSource
from thirteen.bench.fidelity.fidelity import run_fidelity
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.errors import FileError, RequestError
from thirteen.runtime.engine.engine import Engine

from ...convert.peft_adapters import save_random_adapter
from ...convert.test_merge import lora as trained
from ...json_lines import write_rows
from ...runtime.conftest import typed, write_gguf

TEXTS = [
    {"text": "The ferry leaves at nine and comes back at noon."},
    {"question": "What is 12 * 13?", "solution": "12 * 13 = 156\n#### 156"},
    {"question": "What is 7 + 8?", "answer": "7 + 8 = 15, so it is 15."},
    {"text": "Der Zug kommt um halb acht; niemand steigt aus."},
    {"text": "def double(n):\n    return 2 * n\n"},
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("texts") / "texts.jsonl", TEXTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory, base):
    """Converted files of a small random Llama by type, "-adapted" with the adapter "lora" merged."""
    folder = tmp_path_factory.mktemp("made")
    adapter = save_random_adapter(base("llama"), trained(2, 4), folder / "adapter", step=0.05)
    export_adapter(adapter, base("llama"), folder / "lora.gguf")
    files = {"lora": folder / "lora.gguf"}
    for type_ in ("F32", "Q8_0", "Q4_0"):
        for name, merged in ((type_, None), (f"{type_}-adapted", adapter)):
            files[name] = folder / f"{name}.gguf"
            convert(Recipe(base("llama"), files[name], Uniform(type_), adapter=merged))
    return files


def fidelity_of(reference, shipped, *, base=None, shipped_base=None, adapter=None, **options):
    models = {"reference": ModelSource(reference), "shipped": ModelSource(shipped, adapter)}
    if base:
        models |= {"base": ModelSource(base), "shipped_base": ModelSource(shipped_base)}
    return run_fidelity(models, threads=1, **options)


@pytest.fixture(scope="module")
def measure(made, texts):
    def measure(reference, shipped, tokens=400, **others):
        files = {name: made[file] for name, file in others.items()}
        return fidelity_of(made[reference], made[shipped], **files, data=texts, tokens=tokens)

    return measure


def bounds(interval):
    return interval.low, interval.estimate, interval.high


def test_a_file_does_not_diverge_from_itself(measure):
    report = measure("F32", "F32")
    same = report.divergence
    assert (same.kl_p99, same.kl_max) == (0, 0)
    assert bounds(same.kl_mean) == (0, 0, 0)
    assert bounds(same.same_top) == bounds(same.perplexity_ratio) == (1, 1, 1)
    assert same.perplexity == same.reference_perplexity
    assert report.effect is report.base is None
    sentence, perplexity, *_ = report.verdict
    assert sentence.startswith("Fidelity: the file's next token is that of full precision in 100.0 % of ")
    assert "no significant difference" in perplexity


def test_roles_of_one_file_share_an_engine_and_its_predictions(made, texts, measure):
    ticks = []
    apart = measure("F32-adapted", "Q4_0-adapted", tokens=60, base="F32", shipped_base="Q4_0")
    shared = fidelity_of(
        *(made[name] for name in ("F32-adapted", "Q4_0-adapted")),
        **{"base": made["F32"], "shipped_base": made["F32"], "data": texts, "tokens": 60},
        progress=lambda done, total: ticks.append((done, total)),
    )
    assert ticks[-1][0] == ticks[-1][1] and len(ticks) % 3 == 0
    assert shared.divergence == apart.divergence
    assert shared.effect != apart.effect


@pytest.mark.parametrize(
    ("shipped", "adapter", "precision"), [("F32-adapted", {}, 1e-12), ("F32", {"adapter": "lora"}, 1e-4)]
)
def test_full_precision_preserves_the_adapter_merged_or_at_run_time(measure, shipped, adapter, precision):
    report = measure("F32-adapted", shipped, base="F32", shipped_base="F32", **adapter)
    assert bounds(report.effect.slope) == pytest.approx((1, 1, 1), abs=precision)
    assert bounds(report.effect.cosine) == pytest.approx((1, 1, 1), abs=precision)
    assert report.divergence.kl_max < 1e-6
    assert any(line.startswith("the file does what the adapter was") for line in report.verdict)


def test_the_effect_agrees_with_numpy_over_all_positions_at_once(made, tmp_path):
    full, shipped, seen, plain = [], [], set(), [row for row in TEXTS if "text" in row]
    with ExitStack() as stack:
        names = ("F32-adapted", "F32", "Q4_0-adapted", "Q4_0")
        engines = [stack.enter_context(Engine(made[name])) for name in names]
        for row in plain:
            tokens = tuple(engines[0].model.tokenize(row["text"], special=False, bos=True))
            rows = [at for at in range(len(tokens) - 1) if tokens[: at + 1] not in seen]
            seen |= {tokens[: at + 1] for at in rows}
            logits = [engine.logits(tokens)[rows].astype(float) for engine in engines]
            for effects, added in ((full, logits[0] - logits[1]), (shipped, logits[2] - logits[3])):
                effects.append((added - added.mean(1, keepdims=True)).ravel())
    merged = fidelity_of(
        *(made["F32-adapted"], made["Q4_0-adapted"]),
        **{"base": made["F32"], "shipped_base": made["Q4_0"]},
        data=write_rows(tmp_path / "plain.jsonl", plain),
    )
    reference, effect = np.concatenate(full), np.concatenate(shipped)
    slope = np.linalg.lstsq(reference[:, None], effect, rcond=None)[0][0]
    assert merged.effect.slope.estimate == pytest.approx(slope)
    assert merged.effect.cosine.estimate == pytest.approx(np.corrcoef(effect, reference)[0, 1], rel=1e-6)


def test_four_bits_lose_more_of_a_small_adapter_if_merged(measure):
    merged = measure("F32-adapted", "Q4_0-adapted", base="F32", shipped_base="Q4_0")
    run_time = measure("F32-adapted", "Q4_0", base="F32", shipped_base="Q4_0", adapter="lora")
    assert merged.effect.cosine.estimate < run_time.effect.cosine.estimate
    assert any(line.startswith("warning: slope or cosine is below 0.9") for line in merged.verdict)
    assert any("blurs what it does" in line or "lost most of what" in line for line in merged.verdict)


def test_an_adapter_without_effect_is_a_warning(measure):
    report = measure("F32", "Q8_0", base="F32", shipped_base="Q8_0")
    assert report.effect is None
    assert any(line.startswith("warning: no adapter to measure") for line in report.verdict)


def test_a_lost_adapter_has_slope_and_cosine_zero(measure):
    lost = measure("F32-adapted", "Q8_0", base="F32", shipped_base="Q8_0").effect
    assert bounds(lost.slope) == bounds(lost.cosine) == (0, 0, 0)


def test_positions_are_counted_and_limited(measure):
    assert measure("F32", "F32", tokens=40).positions == 40
    one = measure("F32", "F32", tokens=1)
    assert (one.positions, one.passages) == (1, 1)
    assert "warning: with 1 texts" in one.verdict[-1]


def test_a_model_with_a_short_context_gets_shorter_windows(tmp_path, texts):
    long, short = tmp_path / "long.gguf", tmp_path / "short.gguf"
    write_gguf(long, {}, {})
    write_gguf(short, {"llama.context_length": typed(16)}, {})
    report = fidelity_of(long, short, data=texts)
    assert report.divergence.kl_max == 0
    assert report.passages == len(TEXTS)
    write_gguf(short, {"llama.context_length": typed(1)}, {})
    with pytest.raises(RequestError, match="leaves windows of 1 tokens: too few"):
        fidelity_of(long, short, data=texts)


def test_models_and_texts_that_cannot_be_compared_are_refused(made, not_a_model, tmp_path, texts):
    other = write_gguf(tmp_path / "other.gguf", {}, {})
    nan = {"output_norm.weight": np.full(64, np.nan, np.float32)}
    broken = write_gguf(tmp_path / "broken.gguf", {}, nan)
    renamed, short = tmp_path / "renamed.gguf", tmp_path / "short.jsonl"
    renamed.write_bytes(made["F32"].read_bytes().replace(b"<|im_start|>", b"<|in_start|>"))
    short.write_text('{"text": "a"}\n')
    no_bos = {"tokenizer.ggml.add_bos_token": typed(False)}
    bare = write_gguf(tmp_path / "bare.gguf", no_bos, {})
    full = partial(fidelity_of, made["F32"])
    refused = {
        r"F32\.gguf: token 256 of its 272 is .*, which is not one of the 259 of": lambda: fidelity_of(
            other, made["F32"], data=texts
        ),
        r"renamed\.gguf: token 257 of its 272 is '<\|in_start\|>'": lambda: full(renamed, data=texts),
        r"renamed\.gguf: token 257": lambda: full(
            made["Q4_0"], base=made["F32"], shipped_base=renamed, data=texts
        ),
        r"no\.gguf": lambda: full(not_a_model, data=texts),
        r"Q8_0\.gguf": lambda: full(made["Q4_0"], adapter=made["Q8_0"], data=texts),
        r"broken\.gguf: the model's logits are not finite": lambda: fidelity_of(other, broken, data=texts),
        r"short\.jsonl: no passage has the two tokens": lambda: fidelity_of(bare, bare, data=short),
    }
    for message, measure in refused.items():
        with pytest.raises((FileError, RequestError), match=message):
            measure()
