"""Checkpoints of a training run: a resumed run ends with the same weights as an uninterrupted one."""
# ruff: noqa: PLC0415 - torch takes seconds to import and comes with an extra

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..errors import ThirteenError
from ..files.atomic_write import atomic_write
from ..files.output import make_folder, output_errors


def check_run(path: Path, run_id: str) -> None:
    """Write `run_id` to `path`, or check that the run which wrote it there is the same.

    Raises:
        ThirteenError: the file belongs to another run.
        OutputError: it cannot be written.
    """
    make_folder(path.parent)
    with output_errors(path):
        if not path.exists():
            with atomic_write(path) as file:
                file.write(run_id.encode())
        found = path.read_text(encoding="utf-8", errors="replace")
    if found != run_id:
        raise _another_run(path.parent)


def _another_run(path: Path) -> ThirteenError:
    return ThirteenError(
        f"{path}: checkpoint of a run with another base, basis, rows, recipe or --bf16, or of an "
        "earlier version: delete it or choose another output"
    )


@dataclass
class TrainState:
    """The state of a run between two steps."""

    step: int
    losses: list[float]
    validation: list[float]
    trained: list[Any]  # tensors
    optimizer: dict[str, Any]


@dataclass
class ScoreState:
    """The gradients of the first solutions, a tensor (solutions, numbers)."""

    scores: Any


State = TypeVar("State", TrainState, ScoreState)


@dataclass(frozen=True)
class TrainCheckpoint(Generic[State]):
    """The checkpoint file of one run.

    Attributes:
        path: the file.
        run: hash of all that the run's result depends on.
        kind: class of the state.
        every: steps, or batches of solutions, between two checkpoints.
    """

    path: Path
    run: str
    kind: type[State]
    every: int = 10

    def save(self, state: State) -> None:
        """Write the state atomically; the folder is created if needed.

        Raises:
            OutputError: the file cannot be written.
        """
        import torch

        make_folder(self.path.parent)
        with output_errors(self.path, RuntimeError), atomic_write(self.path, exclusive=True) as file:
            torch.save({"run": self.run, **vars(state)}, file)  # raises RuntimeError on a full disk

    def load(self) -> State | None:
        """The last state saved, or None.

        Raises:
            ThirteenError: the file is damaged or belongs to another run.
        """
        import torch

        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, weights_only=True)
            run, state = found.pop("run"), self.kind(**found)
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
            raise ThirteenError(f"{self.path}: damaged checkpoint: delete it to start over") from None
        if run != self.run:
            raise _another_run(self.path)
        return state
