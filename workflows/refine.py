"""Tuning of a quantized file's scales, so that it predicts what its base predicts (distillation)."""

import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from ..convert.calibration_weights import WeightsByGgufName
from ..convert.merged_view import MergedView
from ..convert.source.checkpoint import open_checkpoint
from ..convert.tunable_weights import TunableWeights
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import RequestError
from ..files.progress import Progress, no_progress
from ..models.texts import calibration_texts
from ..runtime.calibration.chunks import Chunk
from ..runtime.calibration.distillation import Distillation, Target
from ..runtime.calibration.worker_lanes import LANES, lane_pool
from .importance_cache import calibration_chunks

_CHUNK_SIZE = 256  # tokens
_BATCH = LANES  # chunks of a step
_HELD_OUT = 9  # one of so many chunks is not learned from
_STEP_SIZE = 1.5e-4  # relative; it falls to 0 by the end
_CHECKS = 8  # of the held-out chunks, in the whole time
_SEED = 13


@dataclass(frozen=True)
class RefineReport:
    """Result of tuning a file.

    Attributes:
        parameters: number of numbers that were tuned.
        steps: steps of the version that is kept; 0 if the file is unchanged.
        divergence_before: KL divergence from the base on calibration text that was not learned from, in nats.
        divergence_after: the same of the version that is kept.
        sha256: hash of the file.
        seconds: duration.
    """

    parameters: int
    steps: int
    divergence_before: float
    divergence_after: float
    sha256: str
    seconds: float


def refine_file(  # noqa: PLR0913 - options of a measurement, each with its default
    file: Path,
    base: Path,
    minutes: float,
    *,
    adapter: Path | None = None,
    vocabulary: VocabularyList | None = None,
    calibration: Path | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> RefineReport:
    """Tune block scales, norms and biases of a file by distillation from its base; the codes are kept.

    Some of the calibration text is held out. The version that is best there is written; if none is better
    than the file, it stays as it is. An interruption leaves the file as it was.

    Args:
        file: a GGUF that convert() has made of the base.
        base: see convert().
        minutes: how long to tune, without the time to run the base over the text.
        adapter: see convert().
        vocabulary: see convert().
        calibration: passages as JSON lines; by default the built-in ones.
        threads: compute threads; by default one per physical core.
        progress: called with the seconds done and in all.

    Raises:
        ThirteenError: an input is invalid, the text is too short, or the file cannot be written.
    """
    began = time.monotonic()
    teacher = WeightsByGgufName(MergedView(open_checkpoint(base), adapter, "", vocabulary))
    student = TunableWeights(file)
    learned, held_out = _split(_chunks(file, calibration or calibration_texts()))
    with lane_pool(threads) as pool:
        distillation = Distillation(teacher, student, pool)
        search = _Search(distillation, student, distillation.targets(held_out))
        search.run(distillation.targets(learned), 60 * minutes, progress)
    return RefineReport(
        parameters=student.parameters,
        steps=search.best.steps,
        divergence_before=search.first.divergence,
        divergence_after=search.best.divergence,
        sha256=student.write(file, search.best.snapshot, search.best.steps),
        seconds=time.monotonic() - began,
    )


def _chunks(file: Path, texts: Path) -> list[Chunk]:
    chunks = calibration_chunks(open_checkpoint(file), texts, "thorough")
    parts = list(  # each once: a repeated one would be learned from and held out
        dict.fromkeys(
            chunk[start : start + _CHUNK_SIZE]
            for chunk in chunks
            for start in range(0, len(chunk), _CHUNK_SIZE)
        )
    )
    if len(parts) < 2:
        raise RequestError(f"{texts}: --refine needs at least {2 * _CHUNK_SIZE} tokens of text")
    return parts


def _split(chunks: list[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks to learn from, and others, evenly spread."""
    held_out = chunks[min(_HELD_OUT, len(chunks)) // 2 :: _HELD_OUT]
    return [chunk for chunk in chunks if chunk not in held_out], held_out


@dataclass(frozen=True)
class _Version:
    """The tensors' bytes after some steps, and their divergence on the held-out chunks."""

    steps: int
    divergence: float
    snapshot: dict[str, np.ndarray]


class _Search:
    """Steps by the gradient of random batches, and the best version so far."""

    def __init__(self, distillation: Distillation, student: TunableWeights, held_out: list[Target]) -> None:
        self._distillation, self._student, self._held_out = distillation, student, held_out
        self._steps = 0
        self.first = self.best = self._version()

    def run(self, learned: list[Target], seconds: float, progress: Progress) -> None:
        """Step until the time is over; the step size falls linearly to 0."""
        random, began, order = np.random.default_rng(_SEED), time.monotonic(), list[int]()
        checks, total = 1, ceil(seconds)
        while (elapsed := time.monotonic() - began) < seconds:
            if elapsed > seconds * checks / _CHECKS:
                self._check()
                checks += 1
            if len(order) < min(_BATCH, len(learned)):
                order = random.permutation(len(learned)).tolist()
            batch = [learned[order.pop()] for _ in range(min(_BATCH, len(order)))]
            self._distillation.add_gradients(batch)
            self._student.step(_STEP_SIZE * (1 - elapsed / seconds))
            self._steps += 1
            progress(int(elapsed), total)
        self._check()

    def _check(self) -> None:
        version = self._version()
        if version.divergence < self.best.divergence:
            self.best = version

    def _version(self) -> _Version:
        divergence = float(self._distillation.divergence(self._held_out).mean())
        return _Version(self._steps, divergence, self._student.snapshot())
