"""KL divergence against file size: planned files, llama.cpp's own around their sizes, and those of others.

python lab/kl_curve.py BASE SIZES OUTPUT [--adapter ADAPTER] [--target x86] [--prefer quality] [--tokens 4096]
    [--search] [--vocabulary N] [--importance FILE] [--file NAME=FILE.gguf ...]

SIZES are those of `thirteen convert --size`, separated by commas. --search and --vocabulary each add a file
of each size, with searched scales and with fewer tokens. --file adds a file that was made elsewhere, for
example by lab/auto_round_gguf.py. The results are OUTPUT.json and OUTPUT.png; the plot needs
matplotlib. All files are compared with the model in F32 on the same held-out texts, position by position.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.files.gguf.header import Header, read_header
from thirteen.files.hashing import file_sha256
from thirteen.files.temporary_folder import temporary_folder
from thirteen.lab.llama_quantize import StockFormat, quantize_stock, stock_sizes
from thirteen.models.adapter import resolve_sources
from thirteen.models.texts import HELD_OUT
from thirteen.quality.fidelity.kl_divergence import Divergence, position_divergence, summarize_divergence
from thirteen.quality.fidelity.text_logits import (
    WINDOW_TOKENS,
    Window,
    WindowPrediction,
    load_for_logits,
    read_windows,
    scored_passages,
)
from thirteen.quality.fidelity.token_map import TokenMap
from thirteen.runtime.logits import log_softmax
from thirteen.stats.arrays import Doubles, Floats
from thirteen.stats.bootstrap import bootstrap_interval, sum_by_passage
from thirteen.stats.interval import Interval
from thirteen.workflows.conversion import run_conversion
from thirteen.workflows.conversion_request import ConversionRequest
from thirteen.workflows.importance_cache import Calibration, cached_importance

SIZE_TOLERANCE = 1.005  # times the bytes of a planned file: metadata differ, so this still counts as its size
KL_MIN = 1e-9  # nats; less is rounding
# Colours from the colour-blind safe palette of Okabe and Ito, and markers.
STYLES = {
    "planned": ("#0072B2", "o"),
    "searched": ("#117733", "*"),
    "trimmed": ("#CC79A7", "D"),
    "uniform": ("#D55E00", "s"),
    "mix": ("#009E73", "^"),
}


@dataclass(frozen=True)
class Point:
    """A measured file.

    Attributes:
        kind: planned, searched, trimmed, uniform, mix, or the name of another program.
        name: size or format.
        file_bytes: its size.
        sha256: its hash.
        divergence: divergence from the reference.
        predicted_kl: KL divergence that the plan predicted, in nats.
    """

    kind: str
    name: str
    file_bytes: int
    sha256: str
    divergence: Divergence
    predicted_kl: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A planned file against the best other file of a kind of at most its size; KL of one over the other."""

    kind: str
    name: str
    other: str
    ratio: Interval


class Curve:
    """The reference's logits, and the files measured against them.

    Attributes:
        points: the files.
    """

    def __init__(self, reference: Path, tokens: int, folder: Path) -> None:
        """Compute the logits, four bytes per position and token, into a file of `folder`."""
        self.points: list[Point] = []
        self._kl: list[Doubles] = []  # (positions,) each
        self._header: Header = read_header(reference)
        with load_for_logits(reference, None) as model:
            size = min(WINDOW_TOKENS, model.context)
            self._windows: Sequence[Window] = read_windows(model, HELD_OUT, size, tokens)
            self._passages: NDArray[np.int64] = scored_passages(self._windows)
            same = TokenMap(self._header, self._header)
            shape = (len(self._passages), model.model.vocabulary_size)
            self._logits: Floats = np.memmap(folder / "logits", np.float32, "w+", shape=shape)
            rows = (
                prediction.logits(at)
                for window in self._windows
                for prediction in [WindowPrediction(model, window, same)]
                for at in window.scored
            )
            for row, logits in enumerate(rows):
                self._logits[row] = logits

    def measure(self, kind: str, name: str, path: Path, predicted_kl: float | None = None) -> None:
        """Measure a file, and print its line."""
        tokens = TokenMap(self._header, read_header(path))
        with load_for_logits(path, None, expansion=tokens.expansion) as model:
            expected, rows = iter(self._logits), []
            for window in self._windows:
                prediction = WindowPrediction(model, window, tokens)
                for at in window.scored:
                    target = log_softmax(next(expected), np.float64)
                    found, following = prediction.log_probabilities(at), window.tokens[at + 1]
                    nll = prediction.nll(at)
                    rows.append(position_divergence(target, found, following, tokens.ids, nll))
        divergence = summarize_divergence(np.array(rows), self._passages)
        nbytes = path.stat().st_size
        self.points.append(Point(kind, name, nbytes, file_sha256(path), divergence, predicted_kl))
        self._kl.append(np.array([row.kl for row in rows]))
        print(f"{kind:9} {name:10} {nbytes / 1e6:8.2f} MB  KL {divergence.kl_mean.text(4)} nats", flush=True)

    def compare(self) -> Iterator[Comparison]:
        """Compare each planned file with the best of each other kind of at most its size."""
        planned = ("planned", "searched", "trimmed")
        files = list(zip(self.points, self._kl, strict=True))
        for ours, kl in files:
            others: dict[str, tuple[Point, Doubles]] = {}
            for other in files:
                kind = other[0].kind
                fits = other[0].file_bytes <= SIZE_TOLERANCE * ours.file_bytes
                if kind not in planned and fits and (kind not in others or _kl(other) < _kl(others[kind])):
                    others[kind] = other
            if ours.kind in planned:
                for kind, (best, their_kl) in others.items():
                    name = f"{kind} {best.name}"
                    yield Comparison(ours.kind, ours.name, name, self._ratio(kl, their_kl))

    def _ratio(self, ours: Doubles, theirs: Doubles) -> Interval:
        sums = sum_by_passage(np.stack((ours, theirs), axis=1), self._passages)  # (passages, 2)
        return bootstrap_interval(
            sums, lambda both: np.maximum(both[..., 0], KL_MIN) / np.maximum(both[..., 1], KL_MIN)
        )


def _kl(file: tuple[Point, Doubles]) -> float:
    return file[0].divergence.kl_mean.estimate


def formats_around(sizes: Sequence[int], stock: dict[StockFormat, int]) -> list[StockFormat]:
    """For each size and kind the two largest formats that fit, and the smallest that does not."""
    chosen: dict[StockFormat, None] = {}
    for size in sizes:
        for kind in ("uniform", "mix"):
            by_size = {nbytes: one for one, nbytes in stock.items() if one.kind == kind}
            below = sorted(nbytes for nbytes in by_size if nbytes <= SIZE_TOLERANCE * size)
            above = sorted(nbytes for nbytes in by_size if nbytes > SIZE_TOLERANCE * size)
            chosen |= dict.fromkeys(by_size[nbytes] for nbytes in (*below[-2:], *above[:1]))
    return list(chosen)


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Draw the files of each kind."""
    import matplotlib as mpl  # noqa: PLC0415 - not installed with Thirteen
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 6), dpi=160, layout="constrained")
        axes = figure.subplots()
        for kind in dict.fromkeys(point.kind for point in points):
            of_kind = sorted((one for one in points if one.kind == kind), key=lambda one: one.file_bytes)
            colour, marker = STYLES.get(kind, ("#E69F00", "v"))
            sizes = [one.file_bytes / 1e6 for one in of_kind]
            means = [one.divergence.kl_mean.estimate for one in of_kind]
            line = "-" if kind in ("planned", "searched", "trimmed") else ""
            axes.plot(sizes, means, linestyle=line, color=colour, marker=marker, label=kind)
            for one, size, mean in zip(of_kind, sizes, means, strict=True):
                axes.annotate(one.name, (size, mean), (6, 0), textcoords="offset points", fontsize=7)
        axes.set_yscale("log")
        axes.set_xlabel("file size, MB")
        axes.set_ylabel("KL divergence from full precision, nats (mean)")
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.legend()
        figure.suptitle(title)
        figure.savefig(path)


def main() -> None:
    """Make and measure all files; each is deleted before the next one is made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("sizes")
    parser.add_argument("output", type=Path)
    parser.add_argument("--adapter")
    parser.add_argument("--target", default="x86")
    parser.add_argument("--prefer", default="quality")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--vocabulary")
    parser.add_argument("--importance", type=Path)
    parser.add_argument("--file", action="append", default=[])
    args = parser.parse_args()
    base, adapter, _ = resolve_sources(args.base, args.adapter)
    importance = args.importance or cached_importance(open_checkpoint(base), adapter, Calibration())
    variants = {
        "planned": {},
        **({"searched": {"thoroughness": "thorough"}} if args.search else {}),
        **({"trimmed": {"vocabulary": args.vocabulary}} if args.vocabulary else {}),
    }
    with temporary_folder("curve") as folder:
        reference, made = folder / "full.gguf", folder / "made.gguf"
        whole = {"base": args.base, "adapter": args.adapter, "fidelity": False}
        run_conversion(ConversionRequest(output=reference, type="F32", **whole).resolve())
        curve = Curve(reference, args.tokens, folder)
        aims = {"target": args.target, "prefer": args.prefer, "importance": importance}
        for size in args.sizes.split(","):
            for kind, options in variants.items():
                request = ConversionRequest(output=made, size=size, **whole, **aims, **options)
                prediction = run_conversion(request.resolve()).conversion.layout.prediction
                curve.measure(kind, size, made, prediction.divergence if prediction else None)
        sizes = [point.file_bytes for point in curve.points]
        for stock in formats_around(sizes, stock_sizes(read_header(reference))):
            made.unlink()
            quantize_stock(reference, made, stock, importance)
            curve.measure(stock.kind, stock.name, made)
        for word in args.file:
            name, _, path = word.partition("=")
            curve.measure(name, Path(path).stem, Path(path))
    comparisons = list(curve.compare())
    for one in comparisons:
        print(f"{one.kind} {one.name}: KL {one.ratio.text(3)} times that of {one.other}")
    facts = {"points": list(map(asdict, curve.points)), "comparisons": list(map(asdict, comparisons))}
    args.output.with_name(f"{args.output.name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    title = f"{args.base}: KL divergence against file size, planned for {args.prefer}"
    draw(curve.points, title, args.output.with_name(f"{args.output.name}.png"))


if __name__ == "__main__":
    main()
