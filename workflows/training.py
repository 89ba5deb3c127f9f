"""Training of an adapter, from a request to a PEFT folder with its card."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..convert.adapter.basis import Basis
from ..convert.provenance import provenance_name
from ..errors import RequestError
from ..files.output import check_folder
from ..files.processors import multiplies_bf16
from ..files.progress import Stage, no_progress, when_needed
from ..learn.cards import check_card, npg_card, sft_card, write_card
from ..learn.job import TrainingJob
from ..learn.npg import NpgResult, train_npg
from ..learn.recipe import KINDS, METHODS, RECIPES, ROLLOUT_DEFAULTS, Recipe
from ..learn.rollouts import SampledRow, read_advantage_rows, read_rollout_rows
from ..learn.sft import SftResult, train_sft
from ..models.fetch import fetch
from ..models.rows import TrainingRow, read_rows, split_rows
from .adapter_resolver import catalogue_name, hub_id_of, resolve_adapter_folder, resolve_basis

DEFAULT_KL = 0.01


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """Options of a training run.

    The fields of a recipe are None for its default; see Recipe.

    Attributes:
        base: catalogue name, hub id, folder of safetensors, or GGUF.
        output: adapter folder to write. It also holds the checkpoint from which an interrupted run resumes.
        data: rows with worked solutions.
        rollouts: file of rollouts, instead of `data`.
        method: `sft` on solutions, or `npg`: one natural policy gradient step on right and wrong rollouts.
        kind: `lora` or `tinylora`.
        basis: frozen part of a TinyLoRA; by default that of the base.
        kl: with npg, KL divergence of the step in nats per token; by default 0.01.
        start: with npg, the adapter that sampled the rollouts, over the same basis; by default the base.
        revision: branch, tag or commit of the base on the hub.
    """

    base: str
    output: Path
    data: Path | None = None
    rollouts: Path | None = None
    method: str = "sft"
    kind: str = "lora"
    basis: Path | None = None
    kl: float | None = None
    start: str | None = None
    revision: str | None = None
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
    threads: int | None = None

    def check(self) -> None:
        """Raise ThirteenError if fields exclude each other, have no effect, or are malformed."""
        for name, known in (("method", METHODS), ("kind", KINDS)):
            if (value := getattr(self, name)) not in known:
                raise RequestError(f"--{name} {value!r}: must be one of {', '.join(known)}")
        if self.method == "npg":
            if self.kind != "tinylora":
                raise RequestError("--method npg: it is for --kind tinylora")
            self._refuse("--method npg takes --rollouts", "data")
            of_sft = ("epochs", "batch_rows", "max_tokens", "max_rows", "held_out", "learning_rate")
            self._refuse("it is not for --method npg", *of_sft)
        else:
            self._refuse("it is for --method npg", "kl", "start")
        if bool(self.data) == bool(self.rollouts):
            raise RequestError("give either --data or --rollouts")
        if self.rollouts:
            self._refuse("it is for --data", "final_line", "calculator")
        if self.kind == "tinylora":
            self._refuse("it is for --kind lora", "alpha")
        else:
            self._refuse("it is for --kind tinylora", "basis", "numbers")
        if self.basis:
            self._refuse("--basis determines it", "rank", "numbers")
        if self.kl is not None and not 1e-6 <= self.kl <= 1:
            raise RequestError(f"--kl {self.kl}: must be from 0.000001 to 1")
        if self.start and Path(self.start).resolve() == self.output.resolve():
            raise RequestError(f"--output {self.output}: it is the folder of --start")

    def _refuse(self, reason: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise RequestError(f"--{name.replace('_', '-')}: {reason}")

    def recipe(self, basis: Basis | None) -> Recipe:
        """The recipe of the kind of adapter, changed by the basis and the fields that are given.

        Raises:
            ThirteenError: a value is out of range.
        """
        values: dict[str, Any] = {"bf16": multiplies_bf16()} | (ROLLOUT_DEFAULTS if self.rollouts else {})
        if basis:
            origin = basis.origin
            values |= {"rank": origin.rank, "numbers": origin.numbers, "projection_seed": origin.seed}
        given = {field.name: getattr(self, field.name, None) for field in fields(Recipe)}
        values |= {name: value for name, value in given.items() if value is not None}
        return replace(RECIPES[self.kind], **values)


def run_training(
    request: TrainingRequest, command: str = "", stage: Stage = lambda name: no_progress
) -> SftResult | NpgResult:
    """Train an adapter, and save it with its card.

    Args:
        request: what to train.
        command: the command line, for the card.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: an input is invalid, the output cannot be written, or it belongs to another run.
    """
    request.check()
    job = _resolve_job(request, stage)
    if request.method == "npg":
        return _run_npg(request, job, command, stage)
    return _run_sft(request, job, command, stage)


def _resolve_job(request: TrainingRequest, stage: Stage) -> TrainingJob:
    """Fetch the base and its basis; what can be refused is, before anything is downloaded."""
    base, output = request.base, request.output
    basis = resolve_basis(base, request.basis) if request.basis else None
    recipe = request.recipe(basis)
    check_folder(output)
    check_card(output)
    path = fetch(base, revision=request.revision, kind="base")
    if output.resolve() == (path.parent if path.is_file() else path).resolve():
        raise RequestError(f"--output {output}: it is the folder of the base")
    if request.kind == "tinylora" and not basis:
        settings = {"rank": recipe.rank, "numbers": recipe.numbers, "seed": recipe.projection_seed}
        basis = resolve_basis(base, settings=settings, progress=when_needed(stage, "basis"))
    name = catalogue_name(base)
    return TrainingJob(path, output, recipe, basis, hub_id_of(name) if name else provenance_name(base))


def _run_sft(request: TrainingRequest, job: TrainingJob, command: str, stage: Stage) -> SftResult:
    recipe = job.recipe
    training: Sequence[TrainingRow | SampledRow]
    held_out: Sequence[TrainingRow | SampledRow]
    if request.rollouts:
        found = read_rollout_rows(request.rollouts, recipe.held_out, recipe.seed)
        job = replace(job, recipe=replace(recipe, final_line=False, calculator=found.calculator))
        training, held_out = found.training, found.held_out
        source = f"{request.rollouts.name}, right solutions that were sampled, weighted by their advantage"
    else:
        assert request.data, "see check()"
        training, held_out = split_rows(read_rows(request.data), recipe.held_out, recipe.seed)
        source = request.data.name
    result = train_sft(job, training, held_out, stage)
    write_card(job.out, sft_card(job, result, command, source))
    return result


def _run_npg(request: TrainingRequest, job: TrainingJob, command: str, stage: Stage) -> NpgResult:
    assert request.rollouts, "see check()"
    kl = DEFAULT_KL if request.kl is None else request.kl
    start = request.start
    folder = resolve_adapter_folder(start, progress=when_needed(stage, "basis")) if start else None
    sampled = read_advantage_rows(request.rollouts, folder)
    job = replace(job, recipe=replace(job.recipe, calculator=sampled.calculator))
    result = train_npg(job, sampled, kl, stage("gradients"))
    write_card(job.out, npg_card(job, result, kl, command, request.rollouts.name))
    return result
