"""What a fidelity measurement found: in sentences, and as a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...stats.intervals import PASSAGES_MIN, Interval
from ..environment import BenchReport, ModelFile
from ..table import Table
from .comparison import EFFECT_MIN, AdapterEffect, Divergence
from .token_map import VocabularyCoverage


@dataclass(frozen=True, slots=True)
class FidelityReport(BenchReport):
    """Fidelity of a shipped file to the adapted model in full precision.

    Both bases are None if the adapter's effect is not measured; `effect` is None also if there is none, and
    `vocabulary` if the file has all tokens of the reference. `positions` are predictions compared, of each
    model.
    """

    reference: ModelFile
    shipped: ModelFile
    base: ModelFile | None
    shipped_base: ModelFile | None
    data: str
    data_sha256: str
    passages: int
    positions: int
    divergence: Divergence
    effect: AdapterEffect | None
    vocabulary: VocabularyCoverage | None


def describe_fidelity(report: FidelityReport) -> Iterator[str]:
    """The finding in plain words, then what explains it, and warnings."""
    same = report.divergence.same_top
    yield (
        f"Fidelity: the file's next token is that of full precision in {100 * same.estimate:.1f} % of "
        f"{report.positions:,} places ({100 * same.low:.1f} to {100 * same.high:.1f} %)."
    )
    yield _describe_perplexity(report.divergence.perplexity_ratio)
    if report.effect:
        yield from _describe_effect(report.effect)
    elif report.base:
        yield "warning: no adapter to measure: reference and base have the same logits over these texts"
    if report.passages < PASSAGES_MIN:
        yield (
            f"warning: with {report.passages} texts the intervals are too narrow; take {PASSAGES_MIN} or more"
        )


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


def _figures(report: FidelityReport) -> Iterator[tuple[str, str]]:
    divergence, effect, coverage = report.divergence, report.effect, report.vocabulary
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


def fidelity_summary(report: FidelityReport) -> dict[str, str]:
    """The figures by name, and the sentences."""
    return dict(_figures(report)) | {"verdict": "\n".join(report.verdict)}


def fidelity_table(report: FidelityReport) -> Table:
    """Tabulate the figures, with the texts and the machine below."""
    shipped, reference = report.shipped, report.reference
    rows = [
        *_figures(report),
        ("file, MB", f"{shipped.total_bytes / 1e6:.1f}"),
        ("bits per weight", f"{shipped.bits_per_weight:.2f}"),
    ]
    notes = (
        f"{report.positions:,} positions of {report.passages} texts in {Path(report.data).name}",
        f"reference: {reference.bits_per_weight:.2f} bits per weight, "
        f"perplexity {report.divergence.reference_perplexity.text(2)}",
        f"{report.machine.cpu}, llama-cpp-python {report.build.llama_cpp_python}",
    )
    title = f"{Path(shipped.path).name} vs {Path(reference.path).name}"
    return Table(title, ("", "shipped (95 %)"), tuple(rows), notes)
