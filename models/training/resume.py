"""How far a training run has come, as a file: whoever goes on from it ends with the same weights."""
# ruff: noqa: PLC0415 - torch takes seconds to import and comes with an extra

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ThirteenError
from ...files.atomic_write import atomic_write
from ...files.output import make_folder, output_errors


def run_id(*told: object) -> str:
    """A hash of all that decides what a run does, as JSON has it."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def check_run(path: Path, run: str) -> None:
    """Note at `path` that what lies beside it is the run's that the hash `run` stands for.

    Raises:
        ThirteenError: it is another run's.
        OutputError: it cannot be written.
    """
    make_folder(path.parent)
    with output_errors(path):
        if not path.exists():
            path.write_text(run, encoding="utf-8")
        found = path.read_text(encoding="utf-8", errors="replace")
    if found != run:
        raise _another(path.parent)


def _another(path: Path) -> ThirteenError:
    return ThirteenError(
        f"{path}: the checkpoint of a run with another base, other rows or another recipe: "
        "remove it, or choose another folder"
    )


@dataclass
class TrainState:
    """What a run is made of between two steps."""

    step: int
    losses: list[float]
    validation: list[float]
    trained: list[Any]  # tensors
    optimizer: dict[str, Any]


class TrainCheckpoint:
    """The file in which one run's standing is kept."""

    def __init__(self, path: Path, run: str, every: int) -> None:
        """Keep it at `path`, after each `every` steps, for the run that the hash `run` stands for."""
        self.path, self.run, self.every = path, run, every

    def save(self, standing: TrainState) -> None:
        """Write it, so that it is there whole or as it was before.

        Raises:
            OutputError: it cannot be written.
        """
        import torch

        with output_errors(self.path, RuntimeError), atomic_write(self.path) as file:
            torch.save({"run": self.run, **vars(standing)}, file)  # raises RuntimeError on a full disk

    def load(self) -> TrainState | None:
        """What was saved last; None if nothing was.

        Raises:
            ThirteenError: it is damaged, or another run's.
        """
        import torch

        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, weights_only=True)
            run, standing = found.pop("run"), TrainState(**found)
        except (
            OSError,
            RuntimeError,
            ValueError,
            TypeError,
            KeyError,
            EOFError,
            AttributeError,
            pickle.UnpicklingError,
        ):
            raise ThirteenError(f"{self.path}: a damaged checkpoint: remove it to begin anew") from None
        if run != self.run:
            raise _another(self.path)
        return standing

    def remove(self) -> None:
        """Forget it, at the end of the run."""
        self.path.unlink(missing_ok=True)
