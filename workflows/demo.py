"""The whole path on the embedded default: base and adapter to two GGUFs, answers of each, their latency."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table

from ..bench.speed import latency
from ..convert.adapter.adapter import load_adapter
from ..files.progress import Progress, no_progress
from ..models.catalogue import adapter_folder
from ..models.tuning.objective import is_right
from ..models.tuning.synthetic_sums import draw_sums
from ..runtime.answer import Answer
from ..runtime.engine.engine import Engine
from ..stats.paired_ratio import ROUNDS_MIN
from .default_model import ADAPTER, NAME, TYPE, default_model

QUESTION = "If I have 3 apples and buy 4 more, how many apples do I have?"
MAX_TOKENS = 32  # as the adapter was tuned for
SUMS = 48  # one-step sums in words, of those held out
_SEED = 1


@dataclass(frozen=True)
class DemoAnswers:
    """What one model said: to the one question, and how many of the sums it had right."""

    answer: Answer
    right: int


@dataclass(frozen=True)
class DemoReport:
    """What the demo made and found; `bench` holds its latency report."""

    question: str
    max_tokens: int
    sums: int
    adapter: str
    trained_numbers: int
    base: DemoAnswers
    adapted: DemoAnswers
    bench: latency.LatencyReport


def run_demo(progress: Progress = no_progress) -> DemoReport:
    """Convert the plain base and the base with the shipped adapter, ask both, and measure them by turns.

    Raises:
        ThirteenError: the embedded model is missing, or the cache cannot be written.
    """
    base = default_model(adapted=False, progress=progress)
    adapted = default_model(adapted=True, progress=progress)
    return DemoReport(
        question=QUESTION,
        max_tokens=MAX_TOKENS,
        sums=SUMS,
        adapter=ADAPTER,
        trained_numbers=load_adapter(adapter_folder(ADAPTER)).trained_parameters,
        base=ask_demo(base),
        adapted=ask_demo(adapted),
        bench=latency.run_latency(
            base, adapted, prompt_tokens=64, decode_tokens=32, rounds=ROUNDS_MIN, progress=progress
        ),
    )


def demo_table(report: DemoReport) -> Group:
    """One short table, the two answers, and where the files lie."""
    bench = report.bench
    sides = Table("", "base", "adapted", "adapted / base", box=None, pad_edge=False)
    for name, measure in (
        ("prefill", bench.prefill),
        ("first token", bench.first_token),
        ("decode", bench.decode),
    ):
        ratio = measure.ratio
        sides.add_row(
            f"{name}, {measure.unit}",
            f"{measure.base_median:.3g}",
            f"{measure.adapted_median:.3g}",
            f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
        )
    sizes = [side.file_bytes / 1e6 for side in (bench.base, bench.adapted)]
    sides.add_row("file, MB", *(f"{size:.1f}" for size in sizes), f"{sizes[1] / sizes[0]:.3f}")
    both = (report.base, report.adapted)
    sides.add_row(f"sums right, of {report.sums}", *(str(side.right) for side in both), "")
    sides.add_row("answer", *(side.answer.value or "none" for side in both), "")
    return Group(
        f"base      {NAME}, {TYPE}: {_home(bench.base.path)}",
        f"adapted   + {report.adapter}, {report.trained_numbers} trained numbers: "
        f"{_home(bench.adapted.path)}",
        f"sums      in words, one step each, answered within {report.max_tokens} tokens",
        f"question  {report.question}",
        "",
        sides,
    )


def ask_demo(model: Path) -> DemoAnswers:
    """Put the question and the sums to a model."""
    rows = draw_sums(SUMS, _SEED, held_out=True)
    with Engine(model, context=512, slots=8) as engine:
        answer = engine.answer(QUESTION, max_tokens=MAX_TOKENS)
        answers = engine.answers([row.question for row in rows], max_tokens=MAX_TOKENS)
    right = sum(is_right(answer, row) for answer, row in zip(answers, rows, strict=True))
    return DemoAnswers(answer, right)


def _home(path: str) -> str:
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path
