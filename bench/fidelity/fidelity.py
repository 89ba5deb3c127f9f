"""Fidelity of a quantized file: its distance from full precision, and what it preserves of the adapter.

The same held-out texts go through all models, and predictions are compared at every position: those of the
shipped file with those of the reference, and the effect of the adapter on both.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...files.hashing import file_sha256
from ...files.progress import Progress, no_progress
from ...models.texts import held_out_texts
from ...runtime.engine.engine import Engine
from ...runtime.validation import check_integer
from ...stats.bootstrap import PASSAGES_MIN
from ...stats.interval import FloatArray
from ..harness.environment import BenchReport, report_head
from ..harness.format import Table
from ..harness.model_file import ModelFile, describe_model
from ..harness.schedule import ProgressCounter
from .adapter_effect import InnerProducts, inner_products, logit_effect
from .kl_divergence import PositionDivergence, position_divergence
from .merge_or_runtime import (
    Fidelity,
    Recommendation,
    compare_merge_and_runtime,
    fidelity_advice,
    fidelity_verdict,
)
from .model_roles import ModelRoles, ModelSource, load_models
from .text_logits import WINDOW_TOKENS, WindowPrediction, read_windows, scored_passages
from .token_map import TokenMap
from .vocabulary_coverage import VocabularyCoverage, coverage_rows, measure_coverage
from .windows import Window

_OUTSIDE = PositionDivergence._fields.index("outside")
_NOT_MEASURED = InnerProducts(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class FidelityReport(BenchReport):
    """Fidelity of a shipped file.

    Attributes:
        files: the model files.
        data: file of the texts.
        data_sha256: its hash in hexadecimal.
        passages: number of texts read.
        positions: number of predictions compared, of each model.
        merged: what the shipped file preserves.
        run_time: what the shipped base with the adapter at run time preserves; None if not measured.
        choice: comparison of the two; None if not measured.
        vocabulary: what the shipped file's vocabulary covers; None if it has all tokens of the reference.
        verdict: conclusions in words, a line each.
    """

    files: ModelRoles[ModelFile]
    data: str
    data_sha256: str
    passages: int
    positions: int
    merged: Fidelity
    run_time: Fidelity | None
    choice: Recommendation | None
    vocabulary: VocabularyCoverage | None
    verdict: tuple[str, ...]


def run_fidelity(
    models: ModelRoles[ModelSource],
    *,
    data: Path | None = None,
    tokens: int = 4096,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> FidelityReport:
    """Compare a shipped file with the model in full precision, over texts that it was not made from.

    All models are loaded together. Texts are cut into windows of 256 tokens, or of a model's context if that
    is shorter. A position whose tokens repeat an earlier one's, as in the prefixes of chats, counts once.

    Args:
        models: the files; see model_sources().
        data: texts as JSON lines, see read_passages(); by default the held-out texts of this package.
        tokens: maximum number of compared positions.
        threads: threads that compute; by default those of Engine.
        progress: called with tokens computed and in all, over all models.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, cannot be run by this build, or has another
            vocabulary than the reference; or a model's logits are not finite.
        AdapterError: the adapter does not fit the shipped base.
        RequestError: a number is out of range, or `data` holds no text.
    """
    check_integer("bench: tokens", tokens, 1)
    data = held_out_texts() if data is None else data
    head = report_head()
    with ExitStack() as handles:
        engines, maps = load_models(models, threads, handles)
        # A text may be longer in a trimmed vocabulary.
        sizes = engines.map_with(maps, lambda engine, tokens: engine.context // tokens.expansion)
        size = min(WINDOW_TOKENS, *sizes.present)
        windows = read_windows(engines.reference, data, size, tokens)
        values = _measure(engines, maps, windows, progress)
    passages = scored_passages(windows)
    coverage = measure_coverage(maps.shipped, windows, values[:, 0, _OUTSIDE], passages)
    merged, run_time, choice = compare_merge_and_runtime(values, passages)
    texts = len(np.unique(passages))
    return FidelityReport(
        *head,
        files=models.map(lambda source: describe_model(source.model, source.adapter)),
        data=str(data),
        data_sha256=file_sha256(data),
        passages=texts,
        positions=len(passages),
        merged=merged,
        run_time=run_time,
        choice=choice,
        vocabulary=coverage,
        verdict=(*fidelity_verdict(merged, run_time, choice), *_warnings(texts, merged, models.base)),
    )


def _warnings(texts: int, merged: Fidelity, base: object) -> Iterator[str]:
    if base is not None and merged.effect is None:
        yield "warning: no adapter to measure: reference and base have the same logits over these texts"
    if texts < PASSAGES_MIN:
        yield f"warning: with {texts} texts the intervals are too narrow; take {PASSAGES_MIN} or more"


def _measure(
    engines: ModelRoles[Engine], maps: ModelRoles[TokenMap], windows: Sequence[Window], progress: Progress
) -> FloatArray:
    """PositionDivergence and InnerProducts of each scored position and variant, (positions, variants, 8)."""
    tokens = sum(len(window.tokens) for window in windows)
    advance = ProgressCounter(progress, len(set(engines.present)) * tokens)
    return np.concatenate([_measure_window(engines, maps, window, advance) for window in windows])


def _measure_window(
    engines: ModelRoles[Engine], maps: ModelRoles[TokenMap], window: Window, advance: ProgressCounter
) -> FloatArray:
    computed = dict[Engine, WindowPrediction]()  # roles can share an engine

    def compute(engine: Engine, tokens: TokenMap) -> WindowPrediction:
        if engine not in computed:
            computed[engine] = WindowPrediction(engine, window, tokens)
            advance(len(window.tokens))
        return computed[engine]

    predictions = engines.map_with(maps, compute)
    ids = maps.shipped.ids
    return np.array([list(_compare(predictions, ids, at, window.tokens[at + 1])) for at in window.scored])


def _compare(
    predictions: ModelRoles[WindowPrediction], ids: NDArray[np.int64], at: int, next_token: int
) -> Iterator[tuple[float, ...]]:
    """Compare each variant with the reference at one position; the shipped files have the tokens `ids`."""
    row = predictions.map(lambda prediction: prediction.logits(at))  # (vocab,) each
    expected = predictions.reference.log_probabilities(at)
    base, shipped_base = row.base, row.shipped_base
    full_effect = None if base is None else logit_effect(row.reference[ids], base[ids])
    for variant, prediction in zip(row.variants, predictions.variants, strict=True):
        products = _NOT_MEASURED
        if full_effect is not None and shipped_base is not None:
            products = inner_products(logit_effect(variant, shipped_base), full_effect)
        model = prediction.log_probabilities(at)
        divergence = position_divergence(expected, model, next_token, ids, prediction.nll(at))
        yield (*divergence, *products)


def fidelity_table(report: FidelityReport) -> Table:
    """Tabulate the variants, with the verdict and the environment below."""
    title = f"{Path(report.files.shipped.path).name} vs {Path(report.files.reference.path).name}"
    columns = ["shipped (95 %)", "adapter at run time (95 %)"][: len(report.files.variants)]
    return Table(title, ("", *columns), (*_rows(report), *_file_rows(report)), tuple(_notes(report)))


def fidelity_summary(report: FidelityReport) -> dict[str, str]:
    """The figures of fidelity_table() by name, and what to do about them."""
    lines = {name: ", at run time ".join(cells) for name, *cells in _rows(report)}
    warnings = _warnings(report.passages, report.merged, report.files.base)
    advice = fidelity_advice(report.merged, report.run_time, report.choice)
    if verdict := "\n".join((*advice, *warnings)):
        lines["verdict"] = verdict
    return lines


def _rows(report: FidelityReport) -> Iterator[tuple[str, ...]]:
    variants = [variant for variant in (report.merged, report.run_time) if variant is not None]
    divergences = [variant.divergence for variant in variants]
    yield "KL divergence, nats", *(one.kl_mean.text(4) for one in divergences)
    yield "KL, 99th percentile", *(f"{one.kl_p99:.4f}" for one in divergences)
    yield "KL, maximum", *(f"{one.kl_max:.4f}" for one in divergences)
    yield "same top token, %", *(one.same_top.text(1, 100) for one in divergences)
    yield "perplexity", *(one.perplexity.text(2) for one in divergences)
    yield "perplexity / reference's", *(one.perplexity_ratio.text(4) for one in divergences)
    effects = [variant.effect for variant in variants if variant.effect is not None]
    if effects:
        yield "adapter's effect: slope", *(effect.slope.text(3) for effect in effects)
        yield "adapter's effect: cosine", *(effect.cosine.text(3) for effect in effects)
        yield "adapter's effect: error", *(effect.relative_error.text(3) for effect in effects)
    if report.vocabulary is not None:
        yield from coverage_rows(report.vocabulary)


def _file_rows(report: FidelityReport) -> Iterator[tuple[str, ...]]:
    files = report.files.variants
    yield "files, MB", *(f"{file.total_bytes / 1e6:.1f}" for file in files)
    yield "bits per weight", *(f"{file.bits_per_weight:.2f}" for file in files)


def _notes(report: FidelityReport) -> Iterator[str]:
    reference = report.files.reference
    yield from report.verdict
    yield f"{report.positions:,} positions of {report.passages} texts in {Path(report.data).name}"
    yield (
        f"reference: {reference.bits_per_weight:.2f} bits per weight, "
        f"perplexity {report.merged.divergence.reference_perplexity.text(2)}"
    )
    yield f"{report.machine.cpu}, llama-cpp-python {report.build.llama_cpp_python}"
