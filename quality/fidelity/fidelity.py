"""Fidelity of a quantized file: its distance from full precision, and what it preserves of the adapter.

The same held-out texts go through all models, and predictions are compared at every position: those of the
shipped file with those of the reference, and the effect of the adapter on both.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...files.hashing import file_sha256
from ...files.progress import Progress, no_progress
from ...models.texts import HELD_OUT
from ...runtime.engine.engine import Engine
from ...runtime.validation import check_integer
from ...stats.arrays import Doubles
from ...stats.bootstrap import PASSAGES_MIN
from ..environment import BenchReport, ModelFile, describe_model, report_head
from ..schedule import ProgressCounter
from .adapter_effect import (
    Fidelity,
    Recommendation,
    compare_merge_and_runtime,
    fidelity_verdict,
    inner_products,
    logit_effect,
)
from .kl_divergence import PositionDivergence, position_divergence
from .model_roles import VARIANTS, ModelSource, Role, load_models
from .text_logits import WINDOW_TOKENS, Window, WindowPrediction, read_windows, scored_passages
from .token_map import TokenMap, VocabularyCoverage, coverage_rows, measure_coverage

_OUTSIDE = PositionDivergence._fields.index("outside")
_NOT_MEASURED: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class FidelityReport(BenchReport):
    """Fidelity of a shipped file.

    Attributes:
        files: the model files, by role.
        data: file of the texts.
        data_sha256: its hash in hexadecimal.
        passages: number of texts read.
        positions: number of predictions compared, of each model.
        merged: what the shipped file preserves.
        run_time: what the shipped base with the adapter at run time preserves; None if not measured.
        choice: comparison of the two; None if not measured.
        vocabulary: what the shipped file's vocabulary covers; None if it has all tokens of the reference.
        verdict: conclusions in words, a line each.

    Raises:
        RequestError: `files` lacks the reference or the shipped file.
    """

    files: dict[Role, ModelFile]
    data: str
    data_sha256: str
    passages: int
    positions: int
    merged: Fidelity
    run_time: Fidelity | None
    choice: Recommendation | None
    vocabulary: VocabularyCoverage | None
    verdict: tuple[str, ...]

    def __post_init__(self) -> None:
        if missing := {"reference", "shipped"} - self.files.keys():  # as in a damaged JSON file
            raise RequestError(f"files: {min(missing)} is missing")


def run_fidelity(
    models: dict[Role, ModelSource],
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
        FileError: a file is not a GGUF, is damaged, cannot be run by this build, or has another vocabulary
            than the reference; or a model's logits are not finite; the adapter does not fit the shipped base.
        RequestError: a number is out of range, or `data` holds no text.
    """
    check_integer("bench: tokens", tokens, 1)
    data = HELD_OUT if data is None else data
    head = report_head()
    with ExitStack() as handles:
        engines, maps = load_models(models, threads, handles)
        # A text may be longer in a trimmed vocabulary.
        sizes = (engine.context // maps[role].expansion for role, engine in engines.items())
        size = min(WINDOW_TOKENS, *sizes)
        windows = read_windows(engines["reference"], data, size, tokens)
        tokens_read = len(set(engines.values())) * sum(len(window.tokens) for window in windows)
        advance = ProgressCounter(progress, tokens_read)
        # PositionDivergence and inner_products() of each position and variant, (positions, variants, 9).
        values = np.concatenate([_measure_window(engines, maps, window, advance) for window in windows])
    passages = scored_passages(windows)
    scored = [window.tokens[at + 1] for window in windows for at in window.scored]
    coverage = measure_coverage(maps["shipped"], scored, values[:, 0, _OUTSIDE], passages)
    merged, run_time, choice = compare_merge_and_runtime(values, passages)
    texts = len(np.unique(passages))
    return FidelityReport(
        *head,
        files={role: describe_model(source.model, source.adapter) for role, source in models.items()},
        data=str(data),
        data_sha256=file_sha256(data),
        passages=texts,
        positions=len(passages),
        merged=merged,
        run_time=run_time,
        choice=choice,
        vocabulary=coverage,
        verdict=(*fidelity_verdict(merged, run_time, choice), *_warnings(texts, merged, "base" in models)),
    )


def _warnings(texts: int, merged: Fidelity, with_base: bool) -> Iterator[str]:
    if with_base and merged.effect is None:
        yield "warning: no adapter to measure: reference and base have the same logits over these texts"
    if texts < PASSAGES_MIN:
        yield f"warning: with {texts} texts the intervals are too narrow; take {PASSAGES_MIN} or more"


def _measure_window(
    engines: dict[Role, Engine], maps: dict[Role, TokenMap], window: Window, advance: ProgressCounter
) -> Doubles:
    computed = dict[Engine, WindowPrediction]()  # roles can share an engine
    for role, engine in engines.items():
        if engine not in computed:
            computed[engine] = WindowPrediction(engine, window, maps[role])
            advance(len(window.tokens))
    predictions = {role: computed[engine] for role, engine in engines.items()}
    ids = maps["shipped"].ids
    return np.array([list(_compare(predictions, ids, at, window.tokens[at + 1])) for at in window.scored])


def _compare(
    predictions: dict[Role, WindowPrediction], ids: NDArray[np.int64], at: int, next_token: int
) -> Iterator[tuple[float, ...]]:
    """Compare each variant with the reference at one position; the shipped files have the tokens `ids`."""
    row = {role: prediction.logits(at) for role, prediction in predictions.items()}  # (vocab,) each
    expected = predictions["reference"].log_probabilities(at)
    full_effect, change = None, 0.0
    if "base" in row:
        full_effect = logit_effect(row["reference"][ids], row["base"][ids])
        base = predictions["base"].log_probabilities(at)
        change = max(0.0, float(np.sum(np.exp(expected) * (expected - base))))
    for role in VARIANTS:
        if role not in predictions:
            continue
        products = _NOT_MEASURED
        if full_effect is not None:
            products = inner_products(logit_effect(row[role], row["shipped_base"]), full_effect)
        prediction = predictions[role]
        model = prediction.log_probabilities(at)
        divergence = position_divergence(expected, model, next_token, ids, prediction.nll(at))
        yield (*divergence._replace(adapter_kl=change), *products)


def fidelity_summary(report: FidelityReport) -> dict[str, str]:
    """The figures by name, and the verdict."""
    lines = {name: ", at run time ".join(cells) for name, *cells in fidelity_rows(report)}
    lines["verdict"] = "\n".join(report.verdict)
    return lines


def shipped_variants(report: FidelityReport) -> list[Fidelity]:
    """What each measured way to ship the adapter preserves."""
    return [variant for variant in (report.merged, report.run_time) if variant is not None]


def fidelity_rows(report: FidelityReport) -> Iterator[tuple[str, ...]]:
    """The figures by name, of each way to ship the adapter."""
    variants = shipped_variants(report)
    divergences = [variant.divergence for variant in variants]
    yield "KL divergence, nats", *(one.kl_mean.text(4) for one in divergences)
    yield "KL, 99th percentile", *(f"{one.kl_p99:.4f}" for one in divergences)
    yield "KL, maximum", *(f"{one.kl_max:.4f}" for one in divergences)
    yield "same top token, %", *(one.same_top.text(1, 100) for one in divergences)
    yield "perplexity", *(one.perplexity.text(2) for one in divergences)
    yield "perplexity / reference's", *(one.perplexity_ratio.text(4) for one in divergences)
    if ratios := [variant.rounding for variant in variants if variant.rounding]:
        yield "KL / the adapter's own", *(ratio.text(2) for ratio in ratios)
    effects = [variant.effect for variant in variants if variant.effect is not None]
    if effects:
        yield "adapter's effect: slope", *(effect.slope.text(3) for effect in effects)
        yield "adapter's effect: cosine", *(effect.cosine.text(3) for effect in effects)
        yield "adapter's effect: error", *(effect.relative_error.text(3) for effect in effects)
    if report.vocabulary is not None:
        yield from coverage_rows(report.vocabulary)
