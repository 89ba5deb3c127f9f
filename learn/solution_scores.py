"""Scores of sampled solutions: the gradients of their log-likelihoods by TinyLoRA's numbers.

An adapted module adds B R A x to its output, where R = sum_i v_i P_i. While v is zero, the gradient by R is
the sum over tokens of (B^T g) (A x)^T, if g is the gradient by the module's output. So hooks on the frozen
base give the gradient of every solution of a batch apart, from one backward pass (as in arXiv 1510.01799).

The part of prompts that all solutions share, such as worked examples, is computed once. It changes the
likelihood of a solution by its keys and values alone. By the chain rule a score is the gradient with these
held fixed, plus the gradient by them times their derivative by the numbers. That derivative is the same for
all solutions: forward-mode differentiation computes it, in a pass for each number.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache

from ..convert.adapter.basis import Basis, BasisFactors
from ..errors import ThirteenError
from ..files.journal import Journal
from ..files.json_file import from_json
from ..files.progress import QUIET, Progress, Run, no_progress
from ..runtime.engine.prefix_cache import common_length
from ..stats import Doubles
from .examples import Example, row_losses, run_decoder
from .rollouts import TEMPERATURE
from .time_plan import PASS_COST

BATCH_ROWS = 4  # solutions in one pass; more are no faster, and take more memory
_TOKENS_MIN = 64  # a shorter prefix is not worth the passes
_BYTES_MAX = 1 << 31  # of the derivatives
# Layers that know earlier tokens by keys and values alone.
_ATTENTION = {"full_attention", "sliding_attention"}

Hook = Callable[..., Any]  # of a module


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
    done = list[list[float]]()  # in that order
    for entry in journal.entries:  # each has the scores of a batch, (solutions, numbers)
        done += from_json(list[list[float]], entry.get("scores"), str(journal.path))
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
            done += (batch_scores := scores.tolist())
            journal.record({"scores": batch_scores})
            progress(len(done), len(order))
    in_order = np.empty((len(order), basis.origin.numbers))
    in_order[order] = done
    return in_order


@contextmanager
def _hooked(model: Any, basis: Basis, hook: Callable[[str, BasisFactors], Hook]) -> Iterator[None]:
    """Let a hook of each adapted module see, or replace, its outputs."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name, factors in basis.factors.items():
            stack.callback(modules[name].register_forward_hook(hook(name, factors)).remove)
        yield


@contextmanager
def _recorded(model: Any, basis: Basis) -> Iterator[dict[str, torch.Tensor]]:
    """Fill a dict, at each backward pass, with the gradient by R of each module, (rows, r, r)."""
    inner: dict[str, torch.Tensor] = {}
    with _hooked(model, basis, partial(_watcher, inner)), ExitStack() as stack:
        embeddings = model.get_input_embeddings()  # nothing before them changes, so gradients end there
        start = embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_())
        stack.callback(start.remove)
        yield inner


def _watcher(inner: dict[str, torch.Tensor], name: str, factors: BasisFactors) -> Hook:
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


@dataclass
class SharedPrefix:
    """Keys and values of all layers, (1, heads, tokens, width) each, and their derivatives by the numbers.

    A derivative is (numbers, heads, tokens, width).
    """

    states: list[torch.Tensor]
    derivatives: list[torch.Tensor]
    _leaves: list[torch.Tensor] = field(default_factory=list)

    def cache(self, rows: int) -> Any:
        """A KV cache of transformers for a forward pass of so many solutions; it records gradients."""
        self._leaves = [state.repeat(rows, 1, 1, 1).requires_grad_() for state in self.states]
        cache = DynamicCache()
        for layer, first in enumerate(range(0, len(self._leaves), 2)):
            cache.update(self._leaves[first], self._leaves[first + 1], layer)
        return cache

    def scores(self) -> torch.Tensor:
        """The share of the prefix in the gradients of the last cache's solutions, (rows, numbers)."""
        parts = (
            leaf.grad.flatten(1).float() @ derivative.flatten(1).float().T
            for leaf, derivative in zip(self._leaves, self.derivatives, strict=True)
            if leaf.grad is not None
        )
        return torch.stack(list(parts)).sum(0)


def shared_prefix(
    model: Any, basis: Basis, examples: Sequence[Example], progress: Progress = no_progress, *, bf16: bool
) -> SharedPrefix | None:
    """Compute what all prompts begin with, if that is worth it and the model's layers allow it."""
    first = examples[0].ids
    tokens = min(min(common_length(first, one.ids), one.prompt_tokens - 1) for one in examples)
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
    numbers = basis.origin.numbers
    if tokens < _TOKENS_MIN or numbers * PASS_COST > len(examples) or not _ATTENTION.issuperset(kinds):
        return None
    states, tangents = list[Any](), list[list[Any]]()
    for number in range(numbers):
        states, tangent = _differentiate(model, basis, first[:tokens], number, bf16=bf16)
        incomplete = len(states) != 2 * model.config.num_hidden_layers  # some layers take the keys of others
        if incomplete or numbers * sum(state.nbytes for state in states) > _BYTES_MAX:
            return None
        tangents.append(tangent)
        progress(number + 1, numbers)
    return SharedPrefix(states, [torch.cat(some) for some in zip(*tangents, strict=True)])


def _differentiate(
    model: Any, basis: Basis, ids: Sequence[int], number: int, *, bf16: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Keys and values of tokens, and their derivatives by a number."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the others have no derivative of this mode
        stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=bf16))
        stack.enter_context(forward_ad.dual_level())
        stack.enter_context(_hooked(model, basis, partial(_mover, number)))
        cache = DynamicCache()
        run_decoder(model, torch.tensor([ids]), cache)
        duals = [_parts(one) for layer in cache.layers for one in (layer.keys, layer.values)]
    return [value for value, _ in duals], [tangent for _, tangent in duals]


def _parts(dual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    value, tangent = forward_ad.unpack_dual(dual)  # type: ignore[no-untyped-call]  # by torch
    return value, torch.zeros_like(value) if tangent is None else tangent


def _mover(number: int, _: str, factors: BasisFactors) -> Hook:
    """A hook that lets the output of a module have the derivative by a number."""
    a, inner = torch.from_numpy(factors.a), torch.from_numpy(factors.b @ factors.p[number])

    def move(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            moved = _parts(inputs[0])[0].float() @ a.T @ inner.T
        value, tangent = _parts(output)
        return forward_ad.make_dual(value, tangent + moved.to(value.dtype))  # type: ignore[no-untyped-call]

    return move
