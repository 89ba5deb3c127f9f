"""A llama.cpp context: the KV cache of some sequences, and the batches that extend it.

GGML_ASSERT inside the library ends the process. Everything that would trigger one is refused before the call:
see gguf_checks.py for files and Context.decode for batches.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ...errors import AdapterError, ModelFileError, RequestError
from ..profile import KV_TYPES
from ..request import TokenLogprob
from .compute_thread import COMPUTE_THREAD, KeepAlive
from .eval_callback import EmbeddingTap, EvalCallback, MatMulTap
from .library import LOG, Logits, NativeHandle, byte_pointer, logits_address
from .model import LoraAdapter, Model

SEQUENCES_MAX: int = llama_cpp.llama_max_parallel_sequences()
CONTEXT_MAX = 1 << 22  # tokens; far beyond what any model was trained for
# The most of each thing in a Room: bounds of the library, or far beyond use where it has none.
_ROOM = {
    "context": CONTEXT_MAX,
    "slots": SEQUENCES_MAX,
    "batch": 1 << 16,
    "outputs": 1 << 16,
    "threads": 512,  # GGML_MAX_N_THREADS
}


@dataclass(frozen=True, slots=True)
class ContextParams:
    """What a context sets aside, and what it computes with.

    Attributes:
        context: tokens that each sequence can hold.
        slots: native sequences, numbered from 0.
        batch: the most tokens in one decode().
        threads: how many compute.
        prefill_threads: how many compute where a batch is more than a token; as many unless given.
        outputs: the most rows of logits in one decode(), a vocabulary wide each; at least one for each slot.
        kv: the type of keys and values, one of KV_TYPES.
        exact: whether attention keeps and computes in float32, for measuring. On a CPU flash attention
            rounds to float16 even where the cache does not: a KL divergence of 1e-6, where this has 1e-11.
    """

    context: int
    slots: int
    batch: int
    threads: int
    outputs: int
    prefill_threads: int | None = None
    kv: str = "f16"
    exact: bool = False

    def __post_init__(self) -> None:
        if self.kv not in KV_TYPES:
            raise RequestError(f"kv must be one of {', '.join(KV_TYPES)}, not {self.kv!r}")
        for name, most in _ROOM.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise RequestError(f"{name} must be a whole number from 1 to {most}, not {value!r}")
        if not self.slots <= self.outputs <= self.batch:
            raise RequestError(
                f"batch {self.batch} must be at least outputs {self.outputs}, and these slots {self.slots}"
            )


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one native sequence in a batch.

    Attributes:
        slot: the native sequence.
        start: position of the first token.
        tokens: the tokens.
        rows: after how many of the last of them the logits are wanted.
    """

    slot: int
    start: int
    tokens: tuple[int, ...]
    rows: int


class _Batch:
    """The native batch, filled without a loop over tokens.

    The arrays are ctypes' own: those of numpy take five times as long for the few numbers of a decode, after
    which nothing of them is left in the processor's caches.
    """

    def __init__(self, capacity: int) -> None:
        kinds = dict(llama_cpp.llama_batch._fields_)
        self.native = llama_cpp.llama_batch()
        self._arrays = {  # held here: the batch has only their addresses
            name: (kinds[name]._type_ * capacity)()
            for name in ("token", "pos", "n_seq_id", "seq_id", "logits")
        }
        self._slots = (llama_cpp.llama_seq_id * capacity)()
        for name, array in self._arrays.items():
            setattr(self.native, name, ctypes.cast(array, kinds[name]))
        self._arrays["n_seq_id"][:] = [1] * capacity
        for index in range(capacity):
            own = ctypes.byref(self._slots, index * ctypes.sizeof(llama_cpp.llama_seq_id))
            self._arrays["seq_id"][index] = ctypes.cast(own, kinds["n_seq_id"])
        self._rows: list[int] = []

    def fill(self, spans: Sequence[Span]) -> list[int]:
        """Put the spans in, one after the other.

        Returns:
            The index of every row of logits asked for.
        """
        tokens, positions, outputs = (self._arrays[name] for name in ("token", "pos", "logits"))
        for row in self._rows:
            outputs[row] = 0
        end = 0
        rows: list[int] = []
        for span in spans:
            length = len(span.tokens)
            begin, end = end, end + length
            tokens[begin:end] = span.tokens
            positions[begin:end] = range(span.start, span.start + length)
            self._slots[begin:end] = (span.slot,) * length
            rows.extend(range(end - span.rows, end))
        for row in rows:
            outputs[row] = 1
        self.native.n_tokens, self._rows = end, rows
        return rows


class Context(NativeHandle):
    """Keys and values of some sequences of a model, and the computation that grows them.

    Every sequence has cells of its own: one that is full takes nothing from another.
    """

    def __init__(
        self,
        model: Model,
        room: ContextParams,
        adapter: LoraAdapter | None = None,
        tap: MatMulTap | None = None,
        look_up_tap: EmbeddingTap | None = None,
    ) -> None:
        """Set the room aside.

        Args:
            model: what computes.
            room: what to set aside.
            adapter: what to apply to all sequences.
            tap: called in decode() with each product of a weight matrix. In the last layer there are all the
                tokens only if the logits of all are wanted: llama.cpp computes no others.
            look_up_tap: called in decode() with the look-up of the tokens in the embedding.

        Raises:
            RequestError: there is more context than the model was trained for, or not enough memory.
        """
        super().__init__()
        self.model, self.room = model, room
        if room.context > model.context_trained:
            raise RequestError(
                f"context must be at most the {model.context_trained} tokens that the model was trained for, "
                f"not {room.context}"
            )
        self._watch = EvalCallback(tap, look_up_tap) if tap or look_up_tap else None
        handle = llama_cpp.llama_init_from_model(model.handle, _params(room, self._watch))
        if not handle:
            raise RequestError(f"no context of {room.slots} times {room.context} tokens: {LOG.reason()}")
        self.own(handle, llama_cpp.llama_free)
        resting = KeepAlive()  # so that the thread's workers outlast a batch
        COMPUTE_THREAD.attach(resting)
        self._handles.callback(COMPUTE_THREAD.detach, resting)
        self._batch = _Batch(room.batch)
        self._row: Any = ctypes.c_float * model.vocabulary_size
        self._views: dict[int, Logits] = {}  # by address: the library has its rows mostly where it had them
        self._adapter: LoraAdapter | None = None
        self.apply(adapter)

    @property
    def _memory(self) -> Any:
        return llama_cpp.llama_get_memory(self.handle)

    def apply(self, adapter: LoraAdapter | None) -> None:
        """Apply an adapter, or none, to all that is computed from here on.

        Keys and values that were computed under another one stay: it is for the caller to keep them apart.
        """
        if adapter is self._adapter:
            return
        chosen = () if adapter is None else (adapter,)
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * len(chosen))(*(one.handle for one in chosen))
        scales = (ctypes.c_float * len(chosen))(*(one.scale for one in chosen))
        status = llama_cpp.llama_set_adapters_lora(self.handle, handles, len(chosen), scales)
        if status:
            raise AdapterError(f"adapter {adapter and adapter.path}: status {status}: {LOG.reason()}")
        self._adapter = adapter

    def use(self, threads: int) -> None:
        """Have so many threads compute from here on."""
        llama_cpp.llama_set_n_threads(self.handle, threads, threads)

    def decode(self, spans: Sequence[Span]) -> list[int]:
        """Compute a batch.

        Args:
            spans: neighbouring slots in ascending order go through the weights together.

        Returns:
            The batch index of every row of logits asked for, for logits_row() and Sampler.sample().

        Raises:
            RequestError: a token, slot, position or number of tokens is out of bounds. Nothing was computed.
            ModelFileError: the computation failed.
            Exception: what the tap raised. The sequences of the batch are not to be used before clear().
        """
        self._check(spans)
        rows = self._batch.fill(spans)
        status = COMPUTE_THREAD.call(partial(llama_cpp.llama_decode, self.handle, self._batch.native))
        if self._watch is not None:
            self._watch.raise_failure()
        if status:
            raise ModelFileError(
                f"{self.model.header.path}: decoding failed (status {status}): {LOG.reason()}"
            )
        return rows

    def _check(self, spans: Sequence[Span]) -> None:
        room = self.room
        total, rows = sum(len(span.tokens) for span in spans), sum(span.rows for span in spans)
        if not 1 <= total <= room.batch or rows > room.outputs:
            raise RequestError(
                f"a batch has from 1 to {room.batch} tokens and up to {room.outputs} rows of logits, "
                f"not {total} and {rows}"
            )
        for span in spans:
            self._check_slot(span.slot)
            self.model.check_tokens(span.tokens)
            end = span.start + len(span.tokens)
            if span.start < 0 or end > room.context or not 0 <= span.rows <= len(span.tokens):
                raise RequestError(
                    f"positions {span.start} to {end} do not fit a context of {room.context} tokens"
                )

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.room.slots:
            raise RequestError(f"slot must be from 0 to {self.room.slots - 1}, not {slot}")

    def logits_row(self, row: int) -> Logits:
        """The logits at a batch index that decode() gave, (vocab,): a view until the next decode()."""
        address = logits_address(self.handle, row)
        assert address, "the index is one that decode() returned"
        if address not in self._views:
            self._views[address] = np.frombuffer(self._row.from_address(address), np.float32)  # (vocab,)
        return self._views[address]

    def logprob(self, row: int, token: int, top: int) -> TokenLogprob:
        """How likely a token was at a batch index that decode() gave, and so many of the likeliest."""
        logits = self.logits_row(row)  # (vocab,)
        highest = logits.max()
        total = highest + np.log(np.exp(logits - highest).sum())
        best = np.argpartition(-logits, min(top, len(logits) - 1))[:top]
        ranked = sorted(best.tolist(), key=lambda one: -logits[one])
        return TokenLogprob(
            token, float(logits[token] - total), tuple((one, float(logits[one] - total)) for one in ranked)
        )

    def clear(self, slot: int, start: int = 0) -> None:
        """Forget a sequence, from a position on."""
        self._check_slot(slot)
        if not llama_cpp.llama_memory_seq_rm(self._memory, slot, start, -1):
            raise ModelFileError(
                f"{self.model.header.path}: slot {slot} could not be cleared: {LOG.reason()}"
            )

    def nbytes(self, slot: int) -> int:
        """How large save() of a sequence is."""
        self._check_slot(slot)
        return int(llama_cpp.llama_state_seq_get_size(self.handle, slot))

    def save(self, slot: int) -> NDArray[np.uint8]:
        """A copy of the keys and values of a sequence, for restore() in a context of the same kind."""
        blob = np.empty(self.nbytes(slot), np.uint8)
        written = llama_cpp.llama_state_seq_get_data(self.handle, byte_pointer(blob), len(blob), slot)
        assert written == len(blob), "the library writes what it says"
        return blob

    def restore(self, slot: int, blob: NDArray[np.uint8], length: int) -> bool:
        """Put the first `length` tokens of a saved sequence into an empty slot.

        It has to come from a context of the same model, adapter, type and number of slots.

        Returns:
            Whether the library took it; if not, the slot is empty.
        """
        self._check_slot(slot)
        read = llama_cpp.llama_state_seq_set_data(self.handle, byte_pointer(blob), len(blob), slot)
        taken = read == len(blob) and self.used(slot) >= length
        self.clear(slot, length if taken else 0)
        if not taken:
            LOG.reason()  # it is nobody's error, and not to be told with the next one
        return taken

    def used(self, slot: int) -> int:
        """How many tokens a sequence holds."""
        self._check_slot(slot)
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, slot)) + 1


def _params(room: ContextParams, watch: EvalCallback | None) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_seq_max = room.slots
    params.n_ctx = room.context * room.slots
    params.n_batch = params.n_ubatch = room.batch
    params.n_outputs_max = room.outputs
    params.n_threads, params.n_threads_batch = room.threads, room.prefill_threads or room.threads
    params.kv_unified = False
    params.no_perf = True
    params.type_k = params.type_v = KV_TYPES[room.kv]
    if room.exact:
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if watch is not None:
        params.cb_eval = watch.native
        params.op_offload = False  # a tap reads what lies in the processor's own memory
    return params
