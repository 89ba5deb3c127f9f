"""Scores of sampled solutions: the gradients of their log-likelihoods by TinyLoRA's numbers.

An adapted module adds B R A x to its output, where R = sum_i v_i P_i. While v is zero, the gradient by R is
the sum over tokens of (B^T g) (A x)^T, if g is the gradient by the module's output. So hooks on the frozen
base give the gradient of every solution of a batch apart, from one backward pass (as in arXiv 1510.01799).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..convert.adapter.basis import Basis, BasisFactors
from ..errors import ThirteenError
from ..files.from_json import from_json
from ..files.journal import Journal
from ..files.progress import QUIET, Run
from ..stats.arrays import Doubles
from .examples import Example, row_losses
from .rollouts import TEMPERATURE
from .shared_prefix import shared_prefix

BATCH_ROWS = 4  # solutions in one pass; more are no faster, and take more memory


@dataclass(frozen=True)
class _Batch:
    """An entry of the journal: the scores of some solutions, (solutions, numbers)."""

    scores: list[list[float]]


def solution_scores(
    model: Any, basis: Basis, examples: Sequence[Example], journal: Journal, run: Run = QUIET
) -> Doubles:
    """Compute the scores of solutions that were sampled at TEMPERATURE, (solutions, numbers).

    Args:
        model: frozen transformers model without an adapter; in bfloat16 it also multiplies in it.
        basis: basis of the numbers.
        examples: the solutions.
        journal: keeps the scores of each batch; what it has is not computed again.
        run: how it runs.

    Raises:
        ThirteenError: a score is not finite, or the journal is damaged.
        OutputError: the journal cannot be written.
    """
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    # In that order.
    done = [row for entry in journal.entries for row in from_json(_Batch, entry, str(journal.path)).scores]
    bf16 = model.dtype is torch.bfloat16
    shared = None
    if len(done) < len(order):
        shared = shared_prefix(model, basis, examples, run.stage("shared prompt"), bf16=bf16)
    progress = run.stage("gradients")
    with _recorded(model, basis) as inner:
        for first in range(len(done), len(order), BATCH_ROWS):
            batch = [examples[i] for i in order[first : first + BATCH_ROWS]]
            cache = shared.cache(len(batch)) if shared else None
            losses = row_losses(model, batch, bf16=bf16, temperature=TEMPERATURE, cache=cache)
            losses.sum().backward()  # type: ignore[no-untyped-call]  # by torch
            scores = _by_numbers(inner, basis) - (shared.scores() if shared else 0)
            if not scores.isfinite().all():
                raise ThirteenError("the gradient of a solution's likelihood is not finite")
            journal.record(asdict(batch_scores := _Batch(scores.tolist())))
            done += batch_scores.scores
            progress(len(done), len(order))
    in_order = np.empty((len(order), basis.origin.numbers))
    in_order[order] = done
    return in_order


@contextmanager
def _recorded(model: Any, basis: Basis) -> Iterator[dict[str, torch.Tensor]]:
    """Fill a dict, at each backward pass, with the gradient by R of each module, (rows, r, r)."""
    inner: dict[str, torch.Tensor] = {}
    modules = dict(model.named_modules())
    embeddings = model.get_input_embeddings()  # nothing before them changes, so gradients end there
    hooks = [embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_())]
    try:
        for name, factors in basis.factors.items():
            hooks.append(modules[name].register_forward_hook(_watcher(inner, name, factors)))
        yield inner
    finally:
        for hook in hooks:
            hook.remove()


def _watcher(inner: dict[str, torch.Tensor], name: str, factors: BasisFactors) -> Callable[..., None]:
    """A hook that has the backward pass record the gradient by R of a module; A x is all that is kept."""
    a, b = torch.from_numpy(factors.a), torch.from_numpy(factors.b)

    def watch(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            reduced = inputs[0].float() @ a.T  # (rows, tokens, r)

        def record(gradient: torch.Tensor) -> None:
            inner[name] = (gradient.float() @ b).mT @ reduced  # (rows, r, r)

        output.register_hook(record)  # type: ignore[no-untyped-call]  # as torch declares it

    return watch


def _by_numbers(inner: dict[str, torch.Tensor], basis: Basis) -> torch.Tensor:
    """The scores of a batch by the numbers, (rows, numbers): the loss is a negative log-likelihood."""
    parts = (
        torch.einsum("bjk,ijk->bi", inner[name], torch.from_numpy(factors.p))
        for name, factors in basis.factors.items()
    )
    return -torch.stack(list(parts)).sum(0)
