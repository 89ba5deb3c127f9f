"""Fidelity of a quantized file: its distance from full precision, and what it preserves of the adapter.

The same held-out texts go through all models, and predictions are compared at every position: those of the
shipped file with those of the reference, and the effect of the adapter on both.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError
from ...files.gguf.header import read_header
from ...files.progress import Progress, no_progress
from ...files.received_files import file_sha256
from ...models.passages import HELD_OUT
from ...runtime.engine.engine import Engine
from ...runtime.llama.settings import LLAMA
from ...stats import Doubles
from ...stats.intervals import PASSAGES_MIN, Interval
from ..environment import BenchReport, ModelFile, ModelSource, Table, describe_model, report_head
from ..rounds import ProgressCounter
from .comparison import EFFECT_MIN, OUTSIDE, AdapterEffect, Divergence, Role, compare_position
from .text_logits import WINDOW_TOKENS, Window, WindowPrediction, read_windows
from .token_map import TokenMap, VocabularyCoverage, measure_coverage


@dataclass(frozen=True, kw_only=True, slots=True)
class FidelityReport(BenchReport):
    """Fidelity of a shipped file to the adapted model in full precision.

    Both bases are None if the adapter's effect is not measured; `effect` is None also if there is none, and
    `vocabulary` if the file has all tokens of the reference. `positions` are predictions compared, of each
    model.
    """

    reference: ModelFile
    shipped: ModelFile
    base: ModelFile | None = None
    shipped_base: ModelFile | None = None
    data: str
    data_sha256: str
    passages: int
    positions: int
    divergence: Divergence
    effect: AdapterEffect | None
    vocabulary: VocabularyCoverage | None

    def sentences(self) -> Iterator[str]:
        """The finding in plain words, then what explains it, and warnings."""
        same = self.divergence.same_top
        yield (
            f"Fidelity: the file's next token is that of full precision in {100 * same.estimate:.1f} % of "
            f"{self.positions:,} places ({100 * same.low:.1f} to {100 * same.high:.1f} %)."
        )
        yield _describe_perplexity(self.divergence.perplexity_ratio)
        if self.effect:
            yield from _describe_effect(self.effect)
        elif self.base:
            yield "warning: no adapter to measure: reference and base have the same logits over these texts"
        if (texts := self.passages) < PASSAGES_MIN:
            yield f"warning: with {texts} texts the intervals are too narrow; take {PASSAGES_MIN} or more"

    def figures(self) -> Iterator[tuple[str, str]]:
        """The figures by name."""
        divergence, effect, coverage = self.divergence, self.effect, self.vocabulary
        yield "same top token, %", divergence.same_top.text(1, 100)
        yield "KL divergence, nats", divergence.kl_mean.text(4)
        yield "KL, 99th percentile", f"{divergence.kl_p99:.4f}"
        yield "KL, maximum", f"{divergence.kl_max:.4f}"
        yield "perplexity", divergence.perplexity.text(2)
        yield "perplexity / reference's", divergence.perplexity_ratio.text(4)
        if effect:
            yield "adapter's effect: slope", effect.slope.text(3)
            yield "adapter's effect: cosine", effect.cosine.text(3)
        if coverage:
            yield "tokens kept", f"{coverage.kept:,} of {coverage.of:,}"
            yield "tokens of the texts unchanged, %", coverage.unchanged.text(2, 100)
            yield "probability outside, mean, %", coverage.outside.text(3, 100)

    def table(self) -> Table:
        """The figures, with the texts and the machine below."""
        shipped, reference = self.shipped, self.reference
        rows = [
            *self.figures(),
            ("file, MB", f"{shipped.total_bytes / 1e6:.1f}"),
            ("bits per weight", f"{shipped.bits_per_weight:.2f}"),
        ]
        notes = (
            f"{self.positions:,} positions of {self.passages} texts in {Path(self.data).name}",
            f"reference: {reference.bits_per_weight:.2f} bits per weight, "
            f"perplexity {self.divergence.reference_perplexity.text(2)}",
            f"{self.machine.cpu}, llama-cpp-python {self.build.llama_cpp_python}",
        )
        title = f"{Path(shipped.path).name} vs {Path(reference.path).name}"
        return Table(title, ("", "shipped (95 %)"), tuple(rows), notes)


def _describe_perplexity(ratio: Interval) -> str:
    low, high = (100 * (bound - 1) for bound in (ratio.low, ratio.high))
    if not ratio.excludes_one:
        return f"perplexity: no significant difference ({low:+.1f} to {high:+.1f} %)"
    return f"perplexity: {100 * (ratio.estimate - 1):+.1f} % ({low:+.1f} to {high:+.1f} %)"


def _describe_effect(effect: AdapterEffect) -> Iterator[str]:
    slope, cosine = effect.slope.estimate, effect.cosine.estimate
    kept = min(slope, cosine) >= EFFECT_MIN
    if kept:
        words = "the file does what the adapter was trained for"
    elif slope < 0.5:
        words = "the file lost most of what the adapter does"
    else:
        words = "the adapter still acts, but rounding blurs what it does to single predictions"
    yield f"{words} (slope {slope:.2f}, cosine {cosine:.2f})"
    if not kept:
        yield (
            f"warning: slope or cosine is below {EFFECT_MIN}: the shipped file lost a part of its adapter; "
            "a type with more bits preserves more"
        )


def run_fidelity(
    models: Mapping[Role, ModelSource],
    *,
    data: Path = HELD_OUT,
    tokens: int = 4096,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> FidelityReport:
    """Compare a shipped file with the model in full precision, over texts that it was not made from.

    With both bases the adapter's effect is measured. All models are loaded together. A position whose tokens
    repeat an earlier one's, as in the prefixes of chats, counts once; at most `tokens` are compared.

    Raises:
        FileError: a file is not a GGUF, cannot be run by this build, or has another vocabulary than the
            reference; or a model's logits are not finite; an adapter does not fit.
        RequestError: `data` holds no text.
    """
    assert ("base" in models) == ("shipped_base" in models), "an effect is a difference of two models"
    head, maps = report_head(), _token_maps(models)
    with ExitStack() as loaded:
        by_source = dict[ModelSource, Engine]()  # roles can share an engine
        for role, source in models.items():
            if source not in by_source:
                engine = _load(source, WINDOW_TOKENS * maps[role].expansion, threads)
                by_source[source] = loaded.enter_context(engine)
        engines = {role: by_source[source] for role, source in models.items()}
        # A text may be longer in a trimmed vocabulary.
        sizes = (engine.context // maps[role].expansion for role, engine in engines.items())
        windows = read_windows(engines["reference"], data, min(WINDOW_TOKENS, *sizes), tokens)
        advance = ProgressCounter(progress, len(by_source) * sum(len(window.tokens) for window in windows))
        # The numbers of compare_position(), (positions, 8).
        values = np.concatenate([_measure_window(engines, maps, window, advance) for window in windows])
    passages = np.array([window.passage for window in windows for _ in window.scored])  # (positions,)
    scored = [window.tokens[at + 1] for window in windows for at in window.scored]
    files: dict[str, Any] = {role: describe_model(source) for role, source in models.items()}
    return FidelityReport(
        **head,
        **files,
        data=str(data),
        data_sha256=file_sha256(data),
        passages=len(np.unique(passages)),
        positions=len(passages),
        divergence=Divergence.of(values, passages),
        effect=AdapterEffect.of(values, passages),
        vocabulary=measure_coverage(maps["shipped"], scored, values[:, OUTSIDE], passages),
    )


def _load(source: ModelSource, context: int, threads: int | None) -> Engine:
    sizes = {"context": context, "threads": threads, "slots": 1, "batch": 64}
    return Engine(source.model, adapter=source.adapter, library=LLAMA, **sizes)


def _token_maps(models: Mapping[Role, ModelSource]) -> dict[Role, TokenMap]:
    """Compare the vocabularies: shipped files may keep a part of the reference's, the base has all of it."""
    headers = {role: read_header(source.model) for role, source in models.items()}
    maps = {role: TokenMap(headers["reference"], header) for role, header in headers.items()}
    pairs: tuple[tuple[Role, Role], ...] = (("reference", "base"), ("shipped", "shipped_base"))
    for role, other in pairs:
        if other in maps and not np.array_equal(maps[role].ids, maps[other].ids):
            raise FileError(f"{models[other].model}: has another vocabulary than {models[role].model}")
    return maps


def _measure_window(
    engines: Mapping[Role, Engine], maps: Mapping[Role, TokenMap], window: Window, advance: ProgressCounter
) -> Doubles:
    computed = dict[Engine, WindowPrediction]()
    for role, engine in engines.items():
        if engine not in computed:
            computed[engine] = WindowPrediction(engine, window, maps[role])
            advance(len(window.tokens))
    predictions = {role: computed[engine] for role, engine in engines.items()}
    ids = maps["shipped"].ids
    return np.array([compare_position(predictions, ids, at, window.tokens[at + 1]) for at in window.scored])
