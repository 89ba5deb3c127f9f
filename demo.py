"""The whole path on the embedded default: base and adapter to two GGUFs, an answer of each, their latency."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table

from .bench import latency
from .bench.ratio import ROUNDS_MIN
from .convert.adapter import load_adapter
from .convert.pipeline import Progress
from .default import ADAPTER, NAME, TYPE, default_model
from .models.catalogue import adapter_folder
from .runtime.answer import Answer
from .runtime.engine import Engine

QUESTION = "If I have 3 apples and buy 4 more, how many apples do I have?"
MAX_TOKENS = 80


@dataclass(frozen=True)
class DemoReport:
    """What the demo made and found; `bench` holds its latency report."""

    question: str
    adapter: str
    trained_numbers: int
    base: Answer
    adapted: Answer
    bench: latency.LatencyReport


def run(progress: Progress = lambda done, total: None) -> DemoReport:
    """Convert the plain base and the base with the shipped adapter, ask both, and measure them in turns.

    Raises:
        ThirteenError: the embedded model is missing, or the cache cannot be written.
    """
    base = default_model(adapted=False, progress=progress)
    adapted = default_model(adapted=True, progress=progress)
    return DemoReport(
        question=QUESTION,
        adapter=ADAPTER,
        trained_numbers=load_adapter(adapter_folder(ADAPTER)).trained,
        base=_ask(base),
        adapted=_ask(adapted),
        bench=latency.run(
            base, adapted, prompt_tokens=64, decode_tokens=32, rounds=ROUNDS_MIN, progress=progress
        ),
    )


def table(report: DemoReport) -> Group:
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
    sides.add_row("answer", *(answer.value or "none" for answer in (report.base, report.adapted)), "")
    return Group(
        f"base      {NAME}, {TYPE}: {_home(bench.base.path)}",
        f"adapted   + {report.adapter}, {report.trained_numbers} trained numbers: "
        f"{_home(bench.adapted.path)}",
        f"question  {report.question}",
        "",
        sides,
    )


def _ask(model: Path) -> Answer:
    with Engine(model, context=512, slots=1) as engine:
        return engine.answer(QUESTION, max_tokens=MAX_TOKENS)


def _home(path: str) -> str:
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path
