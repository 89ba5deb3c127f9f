"""A training job: its inputs, model set-up, output, and the checkpoints from which it resumes."""
# ruff: noqa: PLC0415 - torch takes seconds to import, and comes with an extra as safetensors does

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..convert.adapter.basis import Basis
from ..convert.source.checkpoint import weights_sha256
from ..errors import ThirteenError
from ..files.atomic_write import atomic_write
from ..files.output import make_folder, output_errors, sync_folder, sync_tree
from ..files.temporary_folder import locked_folder
from .base_model import load_base_model
from .recipe import Recipe


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to train.

    Attributes:
        base: folder of safetensors or a GGUF, which is dequantized to float32.
        out: PEFT folder to write. It also holds the checkpoint from which an interrupted run resumes.
        recipe: hyperparameters.
        basis: the frozen factors of a TinyLoRA; by default PEFT computes its own.
        base_id: name of the base to record in the adapter; by default its path.
    """

    base: Path
    out: Path
    recipe: Recipe
    basis: Basis | None = None
    base_id: str = ""

    @cached_property
    def base_sha256(self) -> str:
        """See Checkpoint.sha256()."""
        return weights_sha256([self.base] if self.base.is_file() else self.base.glob("*.safetensors"))

    def run_id(self, *inputs: object) -> str:
        """Hash of the base, the recipe, the basis and `inputs`: all that a run's result depends on."""
        basis = self.basis and self.basis.origin.id
        identity = [self.base_sha256, asdict(self.recipe), basis, *inputs]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def load(self) -> Any:
        """Load the base, and seed torch.

        The folder is created with the first file in it, so that bad input leaves no empty one.

        Returns:
            The transformers model.

        Raises:
            FileError: the base cannot be loaded.
        """
        model = load_base_model(self.base, threads=self.recipe.threads)
        import torch

        torch.manual_seed(self.recipe.seed)
        return model

    def save(self, adapted: Any) -> None:
        """Save the adapter of a PEFT model. The same weights give the same files, which are then on disk.

        Raises:
            OutputError: the folder cannot be written.
        """
        from safetensors import SafetensorError

        make_folder(self.out)
        with output_errors(self.out, SafetensorError), locked_folder(self.out, ".adapter") as part:
            adapted.peft_config["default"].base_model_name_or_path = self.base_id or str(self.base)
            adapted.save_pretrained(part, save_embedding_layers=False)  # "auto" asks the hub for the base
            path = part / "adapter_config.json"
            config = json.loads(path.read_text(encoding="utf-8"))
            config["target_modules"] = sorted(config["target_modules"])  # PEFT stores a set
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            sync_tree(part)
            for file in sorted(part.iterdir(), key=lambda file: file.suffix == ".safetensors"):
                file.replace(self.out / file.name)  # the weights last
            sync_folder(self.out)


@dataclass
class TrainState:
    """The state of a run between two steps."""

    step: int
    losses: list[float]
    validation: list[float]
    trained: list[Any]  # tensors
    optimizer: dict[str, Any]


@dataclass(frozen=True)
class TrainCheckpoint:
    """The checkpoint file of one run.

    Attributes:
        path: the file.
        run: hash of all that the run's result depends on.
        every: steps between two checkpoints.
    """

    path: Path
    run: str
    every: int = 10

    def save(self, state: TrainState) -> None:
        """Write the state atomically; the folder is created if needed.

        Raises:
            OutputError: the file cannot be written.
        """
        import torch

        make_folder(self.path.parent)
        with output_errors(self.path, RuntimeError), atomic_write(self.path) as file:
            torch.save({"run": self.run, **vars(state)}, file)  # raises RuntimeError on a full disk

    def load(self) -> TrainState | None:
        """The last state saved, or None.

        Raises:
            ThirteenError: the file is damaged or belongs to another run.
        """
        import torch

        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, weights_only=True)
            run, state = found.pop("run"), TrainState(**found)
        except Exception:  # of a damaged file torch raises errors of many classes
            raise ThirteenError(f"{self.path}: damaged checkpoint: delete it to start over") from None
        if run != self.run:
            raise ThirteenError(
                f"{self.path}: checkpoint of a run with another base, basis, rows, recipe or precision, "
                "or of an earlier version: delete it or choose another output"
            )
        return state
