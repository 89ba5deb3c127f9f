"""How faithful a quantized file is to the model in full precision, and how much of its adapter survives.

The same held-out texts go through all models, and their predictions are compared at every position: those of
the shipped file with those of the reference, and what the adapter adds to either.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from ...files.hashing import file_sha256
from ...files.progress import Progress, no_progress
from ...models.texts import held_out_texts
from ...runtime.engine.engine import Engine
from ...runtime.llama.logits import Logits, log_softmax
from ...runtime.request import check_integer
from ...stats.interval import FloatArray
from ..harness.environment import Build, Machine, this_build, this_machine
from ..harness.schedule import ProgressCounter
from .adapter_effect import InnerProducts, inner_products, logit_effect
from .kl_divergence import position_divergence
from .merge_or_runtime import Fidelity, Recommendation, advice, compare_merge_and_runtime, verdict
from .model_roles import ModelFile, ModelRoles, describe_model, load_models, model_sources
from .text_logits import few_texts_warning, passages_of, read_windows, window_logits
from .windows import Window

_TABLE_WIDTH = 76
_NOTHING = InnerProducts(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """All that was measured, and with what; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where.
        build: with which versions.
        files: the models.
        data: the file of the texts.
        data_sha256: its hash, in hexadecimal.
        passages: how many texts were read.
        positions: how many predictions of each model were compared.
        merged: what the shipped file keeps.
        run_time: what the shipped base with the adapter at run time keeps; None if not measured.
        choice: the two compared; None likewise.
        verdict: what it comes to in words, a line each.
    """

    date: str
    machine: Machine
    build: Build
    files: ModelRoles[ModelFile]
    data: str
    data_sha256: str
    passages: int
    positions: int
    merged: Fidelity
    run_time: Fidelity | None
    choice: Recommendation | None
    verdict: tuple[str, ...]


def run_fidelity(  # noqa: PLR0913 - the files of a comparison, each by its name
    reference: Path,
    shipped: Path,
    *,
    base: Path | None = None,
    shipped_base: Path | None = None,
    adapter: Path | None = None,
    data: Path | None = None,
    tokens: int = 4096,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> FidelityReport:
    """Compare a shipped file with the model in full precision, over texts that it was not made from.

    All models are loaded together. Texts are cut to pieces of 256 tokens, or of a model's context where that
    is shorter. A position that repeats an earlier one, as the beginnings of chats do, counts once.

    Args:
        reference: the adapted model in full precision, a GGUF file.
        shipped: the same quantized, with the adapter merged.
        base: the unadapted model in full precision: with `shipped_base`, the adapter's effect is measured.
        shipped_base: the unadapted model, quantized as `shipped` is.
        adapter: a LoRA in a GGUF file that `shipped_base` gets at run time, to compare that with merging.
        data: texts as JSON lines, see runtime.passages; by default those that come along.
        tokens: the most positions to compare.
        threads: that compute; by default one for each physical core.
        progress: called with the tokens computed and those to compute, over all models.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, cannot be run by this build, or has a vocabulary
            other than the reference's; or what a model computes is not finite.
        AdapterError: the adapter is not one for `shipped_base`.
        RequestError: the files do not go together, a number is out of bounds, or `data` holds no text.
    """
    check_integer("bench: tokens", tokens, 1)
    models = model_sources(reference, shipped, base, shipped_base, adapter)
    data = held_out_texts() if data is None else data
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    with ExitStack() as handles:
        engines = load_models(models, threads, handles)
        size = min(engine.context for engine in engines.present)
        pieces = read_windows(engines.reference, data, size, tokens)
        tick = ProgressCounter(progress, len(engines.present) * sum(len(piece.tokens) for piece in pieces))
        values = np.concatenate([_measure(engines, piece, tick) for piece in pieces])  # (positions, ways, 7)
    passages = passages_of(pieces)
    merged, run_time, choice = compare_merge_and_runtime(values, passages)
    texts = len(np.unique(passages))
    return FidelityReport(
        date=date,
        machine=machine,
        build=this_build(),
        files=models.map(describe_model),
        data=str(data),
        data_sha256=file_sha256(data),
        passages=texts,
        positions=len(passages),
        merged=merged,
        run_time=run_time,
        choice=choice,
        verdict=(*verdict(merged, run_time, choice), *_warnings(texts, models.base is not None, merged)),
    )


def _warnings(texts: int, adapted: bool, merged: Fidelity) -> Iterator[str]:
    if adapted and merged.effect is None:
        yield "warning: no adapter to measure: reference and base compute the same over these texts"
    yield from few_texts_warning(texts)


def _measure(engines: ModelRoles[Engine], piece: Window, tick: ProgressCounter) -> FloatArray:
    """Difference and Products at each position that counts, merged and at run time, (positions, ways, 7)."""

    def compute(engine: Engine) -> Logits:
        logits = window_logits(engine, piece)  # (n, vocab)
        tick(len(piece.tokens))
        return logits

    logits = engines.map(compute)
    return np.array([list(_compare(logits, at, piece.tokens[at + 1])) for at in piece.counted])


def _compare(logits: ModelRoles[Logits], at: int, following: int) -> Iterator[tuple[float, ...]]:
    """Both ways at one position, before the token `following`; logits are (n, vocab)."""
    row = logits.map(lambda rows: rows[at])  # (vocab,) each
    expected, base, shipped_base = log_softmax(row.reference, np.float64), row.base, row.shipped_base
    full = None if base is None else logit_effect(row.reference, base)
    for way in row.ways:
        shown = None if shipped_base is None else logit_effect(way, shipped_base)
        found = _NOTHING if full is None or shown is None else inner_products(shown, full)
        yield (*position_divergence(expected, log_softmax(way, np.float64), following), *found)


def fidelity_table(report: FidelityReport) -> Table:
    """The shipped file and, where measured, the adapter at run time; verdict and circumstances below."""
    out = Table(
        "",
        title=Text(f"{Path(report.files.shipped.path).name} beside {Path(report.files.reference.path).name}"),
        caption=Text(_caption(report)),
        caption_justify="left",
        min_width=_TABLE_WIDTH,
    )
    ways = {"shipped": report.merged, "adapter at run time": report.run_time}
    for name, way in ways.items():
        if way is not None:
            out.add_column(f"{name} (95 %)", justify="right")
    for row in _rows(report, [way for way in ways.values() if way is not None]):
        out.add_row(*row)
    return out


def fidelity_summary(report: FidelityReport) -> dict[str, str]:
    """The report in a few lines, each by its name."""
    divergence = report.merged.divergence
    lines = {
        "KL divergence": f"{divergence.kl_mean.text(4)} nats, 99th percentile {divergence.kl_p99:.4f}",
        "same top token": f"{divergence.same_top.text(1, 100)} %",
        "perplexity": f"{divergence.perplexity_ratio.text(4)} of full precision's",
    }
    for name, way in {"merged": report.merged, "run-time": report.run_time}.items():
        if way is not None and (shown := way.effect) is not None:
            slope, cosine = shown.slope.text(3), shown.cosine.text(3)
            lines[f"{name} effect"] = f"slope {slope}, cosine {cosine}"
    warnings = _warnings(report.passages, report.files.base is not None, report.merged)
    if said := "\n".join((*advice(report.merged, report.run_time, report.choice), *warnings)):
        lines["verdict"] = said
    return lines


def _rows(report: FidelityReport, ways: Sequence[Fidelity]) -> Iterator[tuple[str, ...]]:
    all_ = [way.divergence for way in ways]
    yield "KL from the reference, nats", *(way.kl_mean.text(4) for way in all_)
    yield "KL, 99th percentile", *(f"{way.kl_p99:.4f}" for way in all_)
    yield "KL, largest", *(f"{way.kl_max:.4f}" for way in all_)
    yield "same likeliest token, %", *(way.same_top.text(1, 100) for way in all_)
    yield "perplexity", *(way.perplexity.text(2) for way in all_)
    yield "perplexity / reference's", *(way.perplexity_ratio.text(4) for way in all_)
    effects = [way.effect for way in ways if way.effect is not None]
    if effects:
        yield "adapter's effect: slope", *(shown.slope.text(3) for shown in effects)
        yield "adapter's effect: cosine", *(shown.cosine.text(3) for shown in effects)
        yield "adapter's effect: error", *(shown.relative_error.text(3) for shown in effects)
    files = report.files.ways
    yield (
        "files, MB",
        *(f"{(f.file_bytes + (f.adapter.file_bytes if f.adapter else 0)) / 1e6:.1f}" for f in files),
    )
    yield "bits a weight", *(f"{file.bits_per_weight:.2f}" for file in files)


def _caption(report: FidelityReport) -> str:
    reference = report.files.reference
    return "\n".join(
        (
            *report.verdict,
            f"{report.positions:,} positions of {report.passages} texts in {Path(report.data).name}",
            f"reference: {reference.bits_per_weight:.2f} bits a weight, "
            f"perplexity {report.merged.divergence.reference_perplexity.text(2)}",
            f"{report.machine.cpu}, llama-cpp-python {report.build.llama_cpp_python}",
        )
    )
