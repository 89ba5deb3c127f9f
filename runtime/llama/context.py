"""A context of a native library: the KV cache of some sequences, and the batches that extend it.

GGML_ASSERT inside the library ends the process. So tokens and lengths are checked where they enter, in
Engine, and asserted here.
"""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError
from ...stats import Doubles, Floats
from .. import compute
from ..answer import TokenLogprob
from ..compute import NativeHandle
from .model import LoraAdapter, Model
from .settings import Settings
from .thread_governor import ThreadGovernor

_BYTES = ctypes.POINTER(ctypes.c_uint8)


def log_softmax(logits: NDArray[Any]) -> Doubles:
    """Compute the log-softmax over the last axis, (…, vocab), in nats, in float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits


def log_sum_exp(logits: Floats) -> float:
    """Compute the logarithm of the sum of the exponentials of a row, (vocab,), in nats."""
    highest = float(logits.max())
    return highest + log(float(np.exp(logits - highest).sum()))


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of a slot in a batch, at least one; logits of the last `rows` of them are computed."""

    slot: int
    start: int  # position of the first token
    tokens: tuple[int, ...]
    rows: int


class Context(NativeHandle):
    """KV cache of some sequences of a model, and the computation that extends it.

    Every sequence has its own cells: a full one takes none from the others.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        """Allocate the context."""
        super().__init__()
        self.model, self.settings = model, settings
        self._library = library = model.library
        assert settings.context <= model.context_trained, "the plan has clamped it"
        load = partial(library.new_context, model.handle, settings)
        what = f"{model.header.path}: no context of {settings.slots} slots of {settings.context} tokens"
        self.acquire(load, library.free_context, library.log, what)
        self._batch = library.new_batch(settings.batch, 0, 1)
        self._owned.callback(library.free_batch, self._batch)
        self._adapter: LoraAdapter | None = None
        self._limit = settings.threads  # of threads that llama.cpp has
        self._governor = ThreadGovernor(self._limit) if settings.adaptive_threads else None

    def set_adapter(self, adapter: LoraAdapter | None) -> None:
        """Apply an adapter, or none, to everything that is computed from now on.

        KV cache that was computed under another adapter stays: the caller keeps the two apart.
        """
        if adapter is self._adapter:
            return
        status = self._library.set_adapter(self.handle, adapter and adapter.handle)
        self._require(not status, f"adapter {adapter and adapter.path}: status {status}")
        self._adapter = adapter

    def _require(self, done: bool, problem: str) -> None:
        if not done:
            raise FileError(f"{self.model.header.path}: {problem}: {self._library.log.take_errors()}")

    @property
    def _limited_threads(self) -> tuple[int, int]:
        # Flash attention divides the keys of a single token among the threads, and adds up in their order.
        fixed = self.settings.reproducible and self.settings.flash_attention is not False
        return self.settings.threads if fixed else self._limit, self._limit

    def set_threads(self, decode: int, prefill: int) -> None:
        """Set the number of threads for batches of one token, and for larger ones."""
        self._library.set_threads(self.handle, decode, prefill)

    def decode(self, spans: Sequence[Span]) -> list[int]:
        """Compute spans in ascending order of slots: llama.cpp computes only neighbours together.

        Returns the batch index of each requested row of logits, for logits_row() and Sampler.sample().
        """
        settings, vocabulary = self.settings, self.model.vocabulary_size
        assert 1 <= sum(len(span.tokens) for span in spans) <= settings.batch
        assert sum(span.rows for span in spans) <= settings.outputs
        for span in spans:
            assert 0 <= span.slot < settings.slots
            assert 0 <= span.start <= settings.context - len(span.tokens)
            assert 0 <= min(span.tokens) <= max(span.tokens) < vocabulary
        rows = self._fill_batch(spans)
        status = compute.call(self._compute)
        self._require(not status, f"decoding failed (status {status})")
        return rows

    def _fill_batch(self, spans: Sequence[Span]) -> list[int]:
        """Write the spans one after the other; returns the batch index of each row of logits."""
        batch, index, rows = self._batch, 0, list[int]()
        tokens, positions, outputs = batch.token, batch.pos, batch.logits
        counts, slots = batch.n_seq_id, batch.seq_id
        for span in spans:
            first_row = span.start + len(span.tokens) - span.rows
            for position, token in enumerate(span.tokens, span.start):
                tokens[index], positions[index], outputs[index] = token, position, position >= first_row
                counts[index], slots[index][0] = 1, span.slot
                index += 1
            rows += range(index - span.rows, index)
        batch.n_tokens = index
        return rows

    def decode_text(self, tokens: Sequence[int]) -> Iterator[int]:
        """Compute a text alone, in slot 0; yields each row of logits, valid until the next batch."""
        self.clear(0)
        for start in range(0, len(tokens), self.settings.outputs):
            part = tuple(tokens[start : start + self.settings.outputs])
            yield from self.decode([Span(0, start, part, len(part))])

    def _compute(self) -> int:
        compute = partial(self._library.decode, self.handle, self._batch)
        if self._governor is None:
            return int(compute())
        self._governor.resume()
        if self._governor.limit != self._limit:
            self._limit = self._governor.limit
            self.set_threads(*self._limited_threads)
        return int(self._governor.run(compute, self._limited_threads[self._batch.n_tokens > 1]))

    def logits_row(self, row: int) -> Floats:
        """Return the logits at a batch index from decode(), (vocab,): a view until the next decode()."""
        logits = self._library.logits(self.handle, row)
        assert logits, "decode() returned this index"
        return np.ctypeslib.as_array(logits, (self.model.vocabulary_size,))

    def logprob(self, row: int, token: int, top: int) -> TokenLogprob:
        """Return the log-probability of a token at a batch index from decode(), and the `top` likeliest."""
        logits = self.logits_row(row)  # (vocab,)
        total, ranked = log_sum_exp(logits), list[int]()
        if top:  # without, one pass over the logits less
            best = np.argpartition(-logits, min(top, len(logits) - 1))[:top]
            ranked = sorted(best.tolist(), key=lambda one: -logits[one])
        # The sum is rounded: a probability of 1 could be more.
        first, *others = [(one, min(float(logits[one]) - total, 0.0)) for one in (token, *ranked)]
        return TokenLogprob(*first, tuple(others))

    def clear(self, slot: int, start: int = 0) -> None:
        """Remove the KV cache of a sequence from position `start` on."""
        cleared = self._library.clear(self.handle, slot, start)
        self._require(cleared, f"slot {slot} could not be cleared")

    def state_bytes(self, slot: int) -> int:
        """Return the size of what save() returns."""
        return int(self._library.state_bytes(self.handle, slot))

    def save(self, slot: int) -> NDArray[np.uint8]:
        """Copy the KV cache of a sequence, for restore() in a context with the same settings."""
        state = np.empty(self.state_bytes(slot), np.uint8)
        written = self._library.read_state(self.handle, state.ctypes.data_as(_BYTES), len(state), slot)
        assert written == len(state), "the library writes as many bytes as it announced"
        return state

    def restore(self, slot: int, state: NDArray[np.uint8], length: int) -> bool:
        """Put the first `length` tokens of a saved sequence into an empty slot; False if it is refused.

        The state must come from a context of the same model, adapter, KV type and number of slots, and have
        so many tokens; unless Model.cuts_states, no more.
        """
        read = self._library.write_state(self.handle, state.ctypes.data_as(_BYTES), len(state), slot)
        accepted: bool = read == len(state)
        self.clear(slot, length if accepted else 0)
        if not accepted:
            self._library.log.take_errors()  # dropped, so that the next error message does not quote them
        return accepted
