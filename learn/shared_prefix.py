"""The part of prompts that all solutions share, such as worked examples, computed once for their scores.

A shared prefix changes the likelihood of a solution by its keys and values alone. By the chain rule a score
is the gradient with these held fixed, plus the gradient by them times their derivative by the numbers. That
derivative is the same for all solutions: forward-mode differentiation computes it, in a pass for each number.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache

from ..convert.adapter.basis import Basis, BasisFactors
from ..files.progress import Progress, no_progress
from ..runtime.engine.prefix_cache import common_length
from .examples import Example, run_decoder
from .time_plan import PASS_COST

_TOKENS_MIN = 64  # a shorter prefix is not worth the passes
_BYTES_MAX = 1 << 31  # of the derivatives
# Layers that know earlier tokens by keys and values alone.
_ATTENTION = {"full_attention", "sliding_attention"}


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
        stack.enter_context(_moved(model, basis, number))
        cache = DynamicCache()
        run_decoder(model, torch.tensor([ids]), cache)
        duals = [_parts(one) for layer in cache.layers for one in (layer.keys, layer.values)]
    return [value for value, _ in duals], [tangent for _, tangent in duals]


def _parts(dual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A value, and its derivative."""
    value, tangent = forward_ad.unpack_dual(dual)  # type: ignore[no-untyped-call]  # by torch
    return value, torch.zeros_like(value) if tangent is None else tangent


@contextmanager
def _moved(model: Any, basis: Basis, number: int) -> Iterator[None]:
    """Let the outputs of the adapted modules have the derivative by a number."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name, factors in basis.factors.items():
            hook = modules[name].register_forward_hook(_mover(factors, number))
            stack.callback(hook.remove)
        yield


def _mover(factors: BasisFactors, number: int) -> Any:
    a, inner = torch.from_numpy(factors.a), torch.from_numpy(factors.b @ factors.p[number])

    def move(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            moved = _parts(inputs[0])[0].float() @ a.T @ inner.T
        value, tangent = _parts(output)
        return forward_ad.make_dual(value, tangent + moved.to(value.dtype))  # type: ignore[no-untyped-call]

    return move
