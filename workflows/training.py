"""Training of an adapter, from a request to a PEFT folder with its card."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..convert.adapter.basis import Basis, read_basis
from ..errors import FileError, refuse_options
from ..files.output import check_folder
from ..files.processors import multiplies_bf16
from ..files.progress import QUIET, Run
from ..learn.base_model import check_packages
from ..learn.cards import check_card, refuse_base_folder, sft_card, write_card
from ..learn.job import TrainingJob
from ..learn.recipe import RECIPES, Recipe
from ..learn.sft import CHECKPOINT, SftResult, train_sft
from ..models.base import base_name, resolve_base
from ..models.basis import find_basis
from ..models.rows import read_rows, split_rows


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """Options of a training run.

    The fields of a recipe are None for its default; see Recipe.

    Attributes:
        base: catalogue name, hub id, folder of safetensors, or GGUF.
        output: adapter folder to write. It also holds the checkpoint from which an interrupted run resumes.
        data: rows with worked solutions.
        kind: kind of adapter.
        basis: frozen part of a TinyLoRA; by default that of the base.
    """

    base: str
    output: Path
    data: Path
    kind: Literal["lora", "tinylora"] = "lora"
    basis: Path | None = None
    rank: int | None = None
    numbers: int | None = None
    alpha: int | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    batch_rows: int | None = None
    max_tokens: int | None = None
    max_rows: int | None = None
    held_out: int | None = None
    final_line: bool | None = None
    calculator: bool | None = None
    bf16: bool | None = None
    seed: int | None = None

    def check(self) -> None:
        """Raise ThirteenError if fields exclude each other, have no effect, or are malformed."""
        if self.kind == "tinylora":
            refuse_options(self, "it is for {kind} lora", "alpha")
        else:
            refuse_options(self, "it is for {kind} tinylora", "basis", "numbers")
        if self.basis:
            refuse_options(self, "{basis} determines it", "rank", "numbers")

    def recipe(self, basis: Basis | None, threads: int | None) -> Recipe:
        """The recipe of the kind of adapter, changed by the basis and what else is given.

        Raises:
            ThirteenError: a value is out of range.
        """
        values: dict[str, Any] = {"bf16": multiplies_bf16()}
        if basis:
            origin = basis.origin
            values |= {"rank": origin.rank, "numbers": origin.numbers, "projection_seed": origin.seed}
        given = {field.name: getattr(self, field.name, None) for field in fields(Recipe)}
        given["threads"] = threads
        values |= {name: value for name, value in given.items() if value is not None}
        return replace(RECIPES[self.kind], **values)


def run_training(request: TrainingRequest, command: str = "", run: Run = QUIET) -> SftResult:
    """Train an adapter, and save it with its card.

    Args:
        request: what to train.
        command: the command line, for the card.
        run: how it runs.

    Raises:
        ThirteenError: an input is invalid, the output cannot be written, or it belongs to another run.
    """
    request.check()
    check_packages("peft")
    output = request.output
    basis = _read_basis(request.basis, request.base) if request.basis else None
    recipe = request.recipe(basis, run.threads)
    training, held_out = split_rows(read_rows(request.data), recipe.held_out, recipe.seed)
    check_folder(output)
    check_card(output, CHECKPOINT)
    base = resolve_base(request.base)
    refuse_base_folder(output, base.path)
    if request.kind == "tinylora" and not basis:
        settings = {"rank": recipe.rank, "numbers": recipe.numbers, "seed": recipe.projection_seed}
        original = resolve_base(request.base, original=True)
        basis = find_basis(original, run, **settings)
    job = TrainingJob(base.path, output, recipe, basis, base.trained_id)
    result = train_sft(job, training, held_out, run.stage)
    write_card(job.out, sft_card(job, result, command, request.data.name))
    (job.out / CHECKPOINT).unlink(missing_ok=True)  # the last: a run that failed before it goes on from there
    return result


def _read_basis(file: Path, base: str) -> Basis:
    """Read a basis; FileError if it is that of another base."""
    basis, name = read_basis(file), base_name(base)
    if name not in (None, basis.origin.name):
        raise FileError(f"{file}: the basis is of {basis.origin.name}, but the base is {name}")
    return basis
