"""Fidelity from files to report, on small models: results are known, or computed again by torch or NumPy."""

import numpy as np
import pytest
import torch
from gguf import GGUFValueType
from thirteen.bench.quality_tables import fidelity_table
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.errors import FileError, RequestError
from thirteen.quality.fidelity import model_roles
from thirteen.quality.fidelity.adapter_effect import _describe_rounding, compare_merge_and_runtime
from thirteen.quality.fidelity.fidelity import run_fidelity
from thirteen.quality.fidelity.model_roles import model_sources
from thirteen.runtime.engine.engine import Engine

from ...convert.peft_adapters import save_random_adapter
from ...convert.test_merge import lora as trained
from ...json_lines import write_rows
from ...runtime.conftest import write_gguf

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
    models = model_sources(reference, shipped, base=base, shipped_base=shipped_base, adapter=adapter)
    return run_fidelity(models, **options)


@pytest.fixture(scope="module")
def measure(made, texts):
    def measure(reference, shipped, tokens=400, **others):
        files = {name: made[file] for name, file in others.items()}
        return fidelity_of(made[reference], made[shipped], **files, data=texts, tokens=tokens, threads=1)

    return measure


@pytest.fixture(scope="module")
def full(measure):
    return measure("F32-adapted", "Q4_0-adapted", base="F32", shipped_base="Q4_0", adapter="lora")


def tiny_with(path, keys=None, arrays=None):
    """A tiny model unlike those of `made`, with some metadata and tensors changed."""
    return write_gguf(path, keys or {}, arrays or {})


def bounds(interval):
    return interval.low, interval.estimate, interval.high


def test_a_file_does_not_diverge_from_itself(measure):
    report = measure("F32", "F32")
    same = report.merged.divergence
    assert (same.kl_p99, same.kl_max) == (0, 0)
    assert bounds(same.kl_mean) == (0, 0, 0)
    assert bounds(same.same_top) == bounds(same.perplexity_ratio) == (1, 1, 1)
    assert same.perplexity == same.reference_perplexity
    assert report.merged.effect is report.run_time is report.choice is None
    assert "no significant difference" in report.verdict[0]


def test_roles_of_one_file_share_an_engine_and_its_predictions(made, texts, measure, monkeypatch):
    load, loaded, ticks = model_roles.load_for_logits, [], []

    def counting(model, *args, **options):
        loaded.append(model)
        return load(model, *args, **options)

    monkeypatch.setattr(model_roles, "load_for_logits", counting)
    apart = measure("F32-adapted", "Q4_0-adapted", tokens=60, base="F32", shipped_base="Q4_0")
    shared = fidelity_of(
        *(made[name] for name in ("F32-adapted", "Q4_0-adapted")),
        **{"base": made["F32"], "shipped_base": made["F32"], "data": texts, "tokens": 60, "threads": 1},
        progress=lambda done, total: ticks.append((done, total)),
    )
    assert loaded[4:] == [made[name] for name in ("F32-adapted", "Q4_0-adapted", "F32")]
    assert ticks[-1][0] == ticks[-1][1]
    assert shared.merged.divergence == apart.merged.divergence
    assert shared.merged.effect != apart.merged.effect


def test_the_divergence_agrees_with_torch(measure, made, texts):
    report = measure("F32", "Q4_0")
    found, losses, same = [], [], []
    seen = set()
    with Engine(made["F32"]) as reference, Engine(made["Q4_0"]) as shipped:
        for text in TEXTS:
            tokens = tuple(chat(reference, text))
            p, q = (
                torch.log_softmax(torch.tensor(e.logits(tokens)).double(), -1) for e in (reference, shipped)
            )
            kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
            for at in range(len(tokens) - 1):
                if tokens[: at + 1] not in seen:
                    seen.add(tokens[: at + 1])
                    found.append(kl[at].item())
                    losses.append([-p[at, tokens[at + 1]].item(), -q[at, tokens[at + 1]].item()])
                    same.append(p[at].argmax() == q[at].argmax())
    got = report.merged.divergence
    assert report.positions == len(found)
    assert got.kl_mean.estimate == pytest.approx(np.mean(found), rel=1e-9)
    assert got.kl_max == pytest.approx(max(found), rel=1e-9)
    assert got.kl_p99 == pytest.approx(np.quantile(found, 0.99), rel=1e-9)
    assert got.same_top.estimate == pytest.approx(np.mean(same))
    by_reference, by_shipped = np.exp(np.mean(losses, axis=0))
    assert got.reference_perplexity.estimate == pytest.approx(by_reference)
    assert got.perplexity.estimate == pytest.approx(by_shipped)
    assert got.perplexity_ratio.estimate == pytest.approx(by_shipped / by_reference)


def chat(engine, text):
    """Tokens that the model reads, composed by hand for the template of tests/checkpoints.py."""
    plain, (_, start, end) = engine.model.tokenize, (256, 257, 258)
    if "text" in text:
        return plain(text["text"], special=False, bos=True)
    begin = plain("", special=False, bos=True)
    words = [
        plain(part, special=False, bos=False) for part in (f"user\n{text['question']}", "\n", "assistant\n")
    ]
    solution = plain(text.get("solution") or text["answer"], special=False, bos=False)
    return [*begin, start, *words[0], end, *words[1], start, *words[2], *solution, engine.model.eos]


def test_fewer_bits_diverge_more(measure):
    coarse, fine = (measure("F32", type_).merged.divergence for type_ in ("Q4_0", "Q8_0"))
    assert coarse.kl_mean.low > fine.kl_mean.high > 0
    assert coarse.kl_max > fine.kl_max
    assert coarse.same_top.estimate < fine.same_top.estimate


def test_full_precision_preserves_the_adapter_merged_or_at_run_time(measure):
    report = measure("F32-adapted", "F32-adapted", base="F32", shipped_base="F32", adapter="lora")
    merged, run_time = report.merged.effect, report.run_time.effect
    assert bounds(merged.slope) == pytest.approx((1, 1, 1), abs=1e-12)
    assert bounds(merged.cosine) == pytest.approx((1, 1, 1), abs=1e-12)
    assert bounds(merged.relative_error) == pytest.approx((0, 0, 0), abs=1e-6)
    assert bounds(run_time.slope) == pytest.approx((1, 1, 1), abs=1e-4)
    assert bounds(run_time.cosine) == pytest.approx((1, 1, 1), abs=1e-4)
    assert report.run_time.divergence.kl_max < 1e-6
    assert report.choice.recommended == "merged"
    assert "recommended: merged" in report.verdict[-2]


def test_the_effect_agrees_with_numpy_over_all_positions_at_once(full, made):
    effects = {name: [] for name in ("full", "merged", "run-time")}
    engines = {
        "reference": Engine(made["F32-adapted"]),
        "base": Engine(made["F32"]),
        "shipped": Engine(made["Q4_0-adapted"]),
        "shipped base": Engine(made["Q4_0"]),
        "run-time": Engine(made["Q4_0"], adapter=made["lora"]),
    }
    seen = set()
    for text in TEXTS:
        tokens = tuple(chat(engines["base"], text))
        rows = [at for at in range(len(tokens) - 1) if tokens[: at + 1] not in seen]
        seen |= {tokens[: at + 1] for at in rows}
        logits = {name: engine.logits(tokens)[rows].astype(float) for name, engine in engines.items()}
        for name, (adapted, plain) in {
            "full": ("reference", "base"),
            "merged": ("shipped", "shipped base"),
            "run-time": ("run-time", "shipped base"),
        }.items():
            added = logits[adapted] - logits[plain]
            effects[name].append((added - added.mean(1, keepdims=True)).ravel())
    for engine in engines.values():
        engine.close()
    reference = np.concatenate(effects["full"])
    for variant, got in (("merged", full.merged.effect), ("run-time", full.run_time.effect)):
        effect = np.concatenate(effects[variant])
        slope = np.linalg.lstsq(reference[:, None], effect, rcond=None)[0][0]
        assert got.slope.estimate == pytest.approx(slope)
        assert got.cosine.estimate == pytest.approx(np.corrcoef(effect, reference)[0, 1], rel=1e-6)
        error = np.linalg.norm(effect - reference) / np.linalg.norm(reference)
        assert got.relative_error.estimate == pytest.approx(error)
    errors = [variant.effect.relative_error.estimate for variant in (full.merged, full.run_time)]
    assert full.choice.error_difference.estimate == pytest.approx(errors[0] - errors[1])


def test_four_bits_lose_more_of_a_small_adapter_if_merged(full):
    assert full.merged.effect.cosine.estimate < full.run_time.effect.cosine.estimate
    assert full.merged.effect.relative_error.low > full.run_time.effect.relative_error.high
    assert full.choice.recommended == "run-time"
    assert any(line.startswith("warning: slope or cosine is below 0.9") for line in full.verdict)
    assert any(line.startswith("recommended: the adapter at run time") for line in full.verdict)


def test_an_adapter_without_effect_is_a_warning(measure):
    report = measure("F32", "Q8_0", base="F32", shipped_base="Q8_0")
    assert report.merged.effect is None
    assert (
        "warning: no adapter to measure: reference and base have the same logits over these texts"
        in report.verdict
    )


def test_a_lost_adapter_has_slope_and_cosine_zero(measure):
    report = measure("F32-adapted", "Q8_0", base="F32", shipped_base="Q8_0")
    lost = report.merged.effect
    assert bounds(lost.slope) == bounds(lost.cosine) == (0, 0, 0)
    assert bounds(lost.relative_error) == (1, 1, 1)


def test_the_verdict_says_in_plain_words_whether_rounding_or_the_adapter_changes_more(full, measure, made):
    """It said "slope 0.99, cosine 0.45, relative error 195 %"."""
    own = measure("F32-adapted", "F32").merged.divergence.kl_mean.estimate
    ratio = full.merged.rounding
    assert ratio.estimate == pytest.approx(full.merged.divergence.kl_mean.estimate / own, rel=1e-6)
    assert ratio.low > 1.5
    assert _describe_rounding(ratio.estimate) in full.verdict
    assert any("blurs what it does" in line or "lost most of what" in line for line in full.verdict)
    exact = measure("F32-adapted", "F32-adapted", base="F32", shipped_base="F32", adapter="lora")
    assert "rounding changes next to nothing of what this adapter does" in exact.verdict
    assert any(line.startswith("merged: the file does what the adapter was") for line in exact.verdict)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (3.14, "rounding changes the predictions 3.1 times as much as this adapter does"),
        (0.9, "rounding changes the predictions about as much as this adapter does"),
        (0.04, "this adapter changes the predictions 25 times as much as rounding does"),
    ],
)
def test_the_ratio_is_said_in_words(ratio, words):
    assert _describe_rounding(ratio) == words


@pytest.mark.parametrize(("merged", "recommended"), [(0.05, "merged"), (0.14, "merged"), (0.16, "run-time")])
def test_run_time_is_recommended_only_if_it_preserves_enough_more(merged, recommended):
    """The error at run time is 0.1: saving less than 0.05 is not worth the cost of a run-time adapter."""
    sizes, passages = np.random.default_rng(3).uniform(1, 9, 100), np.repeat(np.arange(20), 5)

    def off_by(error):
        """Effects with an error at a right angle to the reference effect; the divergence is not used."""
        return np.outer(sizes, (0, 0, 0, 0, 0, 0, 1, 1 + error**2, 1))

    _, _, choice = compare_merge_and_runtime(np.stack((off_by(merged), off_by(0.1)), axis=1), passages)
    assert choice.error_difference.estimate == pytest.approx(merged - 0.1)
    assert choice.recommended == recommended


def test_the_table_shows_the_measurements_and_the_verdict(full, made):
    table = fidelity_table(full)
    assert table.title == "Q4_0-adapted.gguf vs F32-adapted.gguf" and set(full.verdict) < set(table.notes)
    names = {row[0] for row in table.rows}
    assert {"KL divergence, nats", "same top token, %", "adapter's effect: slope", "files, MB"} < names
    assert all(len(row) == len(table.header) == 3 for row in table.rows)
    assert full.files["run_time"].adapter.path == str(made["lora"])


def test_positions_are_counted_and_limited(measure):
    assert measure("F32", "F32", tokens=40).positions == 40
    one = measure("F32", "F32", tokens=1)
    assert (one.positions, one.passages) == (1, 1)
    assert "warning: with 1 texts" in one.verdict[-1]


def test_a_model_with_a_short_context_gets_shorter_windows(tmp_path, texts):
    long, short = tmp_path / "long.gguf", tmp_path / "short.gguf"
    tiny_with(long)
    tiny_with(short, {"llama.context_length": (16, GGUFValueType.UINT32, None)})
    report = fidelity_of(long, short, data=texts, threads=1)
    assert report.merged.divergence.kl_max == 0
    assert report.passages == len(TEXTS)
    tiny_with(short, {"llama.context_length": (1, GGUFValueType.UINT32, None)})
    with pytest.raises(RequestError, match="leaves windows of 1 tokens: too few"):
        fidelity_of(long, short, data=texts, threads=1)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"base": "F32"}, "a base is given but no shipped base"),
        ({"shipped_base": "Q4_0"}, "a shipped base is given but no base"),
        ({"adapter": "lora"}, "no shipped base to apply it to"),
    ],
)
def test_incomplete_roles_are_refused(measure, others, message):
    with pytest.raises(RequestError, match=message):
        measure("F32", "Q4_0", **others)


def test_a_number_of_positions_out_of_range_is_refused(measure):
    with pytest.raises(RequestError, match="tokens must be an integer of at least 1"):
        measure("F32", "Q4_0", tokens=0)


def test_models_with_different_vocabularies_are_refused(made, tmp_path, texts):
    other = tiny_with(tmp_path / "other.gguf")
    with pytest.raises(FileError, match=r"other\.gguf: its vocabulary has 259 tokens, that of .* 272"):
        fidelity_of(made["F32"], other, data=texts)
    renamed = tmp_path / "renamed.gguf"
    renamed.write_bytes(made["F32"].read_bytes().replace(b"<|im_start|>", b"<|in_start|>"))
    with pytest.raises(FileError, match=r"renamed\.gguf: token 257 of its vocabulary is '<\|in_start\|>'"):
        fidelity_of(made["F32"], renamed, data=texts)
    with pytest.raises(FileError, match=r"renamed\.gguf: token 257"):
        fidelity_of(made["F32"], made["Q4_0"], base=made["F32"], shipped_base=renamed, data=texts)


def test_files_that_cannot_be_read_are_refused(made, not_a_model, tmp_path, texts):
    with pytest.raises(FileError, match=r"no\.gguf"):
        fidelity_of(made["F32"], not_a_model, data=texts)
    with pytest.raises(FileError, match=r"Q8_0\.gguf"):
        fidelity_of(
            *(made["F32-adapted"], made["Q4_0"]),
            base=made["F32"],
            shipped_base=made["Q4_0"],
            adapter=made["Q8_0"],
            data=texts,
        )
    with pytest.raises(FileError, match=r"missing\.jsonl"):
        fidelity_of(made["F32"], made["Q4_0"], data=tmp_path / "missing.jsonl")


def test_texts_of_single_tokens_are_refused(tmp_path):
    model = tiny_with(
        tmp_path / "tiny.gguf", {"tokenizer.ggml.add_bos_token": (False, GGUFValueType.BOOL, None)}
    )
    short = tmp_path / "short.jsonl"
    short.write_text('{"text": "a"}\n')
    with pytest.raises(RequestError, match=r"short\.jsonl: no passage has the two tokens"):
        fidelity_of(model, model, data=short)


def test_a_model_with_logits_that_are_not_finite_is_refused(tmp_path, texts):
    sound = tiny_with(tmp_path / "sound.gguf")
    broken = tiny_with(tmp_path / "broken.gguf", {}, {"output_norm.weight": np.full(64, np.nan, np.float32)})
    with pytest.raises(FileError, match=r"broken\.gguf: the model's logits are not finite"):
        fidelity_of(sound, broken, data=texts, threads=1)
