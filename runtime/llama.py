"""The only file that runs models through llama.cpp: it owns every native handle and checks every return code.

What would end the process inside the library (GGML_ASSERT) is refused before the call: see model_file.py for
files, and Context.decode for batches.
"""

import ctypes
import math
import os
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ..errors import AdapterError, ModelFileError, RequestError
from ..gguf_file import Header, read_header
from .driver import DRIVER, Resting
from .grammar import Grammar
from .model_file import check_adapter, check_model
from .product import LookUpTap, Tap, Watch
from .profile import KV_TYPES
from .request import Sampling, TokenLogprob

SEQUENCES_MAX: int = llama_cpp.llama_max_parallel_sequences()
CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
NORMALISED = (
    "qwen2",
)  # pre-tokenizers of families whose own tokenizer works on NFC, which llama.cpp leaves out
_NAMES = ("utf-8", "surrogateescape")  # how read_header() reads the names of tokens
_MORE_DIGITS = re.compile(r"[.,]?[0-9]")
_ERROR, _CONTINUED = 4, 5  # of ggml_log_level
CONTEXT_MAX = 1 << 22  # tokens; far beyond what any model was trained for
# The most of each thing in a Room: bounds of the library, or far beyond use where it has none.
_ROOM = {
    "context": CONTEXT_MAX,
    "slots": SEQUENCES_MAX,
    "batch": 1 << 16,
    "outputs": 1 << 16,
    "threads": 512,  # GGML_MAX_N_THREADS
}

Array = NDArray[np.float32]
_CANDIDATE = np.dtype(llama_cpp.llama_token_data)


class _Log:
    """The library's messages: kept for the error that follows them, never printed."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.level = 0
        self.callback = llama_cpp.llama_log_callback(
            self.receive
        )  # held here: the library keeps only a pointer
        llama_cpp.llama_log_set(self.callback, ctypes.c_void_p(0))

    def receive(self, level: int, text: bytes, _: ctypes.c_void_p) -> None:
        self.level = self.level if level == _CONTINUED else level
        if self.level == _ERROR:
            self.errors.append(text.decode("utf-8", "replace").strip())

    def reason(self) -> str:
        """The errors since the last call, as one line without the names of C++ functions."""
        lines = [line.split(": ", 1)[-1] for line in self.errors if line]
        self.errors.clear()
        return "; ".join(" ".join(line.split()) for line in lines) or "llama.cpp gives no reason"


_log = _Log()
llama_cpp.llama_backend_init()

# As a number, where llama_cpp's own makes a pointer object for each row of logits.
_logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, llama_cpp.llama_context_p_ctypes, ctypes.c_int32)(
    ("llama_get_logits_ith", llama_cpp.llama_cpp._lib)
)


class _Owner:
    """Something that holds a native handle, freed by close() or by leaving a with block."""

    def __init__(self) -> None:
        self._handles = ExitStack()
        self._handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def own(self, handle: Any, free: Callable[[Any], None]) -> None:
        """Take over a handle, with the function that frees it."""
        self._handle = handle
        self._handles.callback(free, handle)

    @property
    def handle(self) -> Any:
        """The handle, while it is valid: the library would crash on a freed one."""
        if self._handle is None:
            raise RequestError(f"{type(self).__name__.lower()}: it is closed")
        return self._handle

    def close(self) -> None:
        """Free what is held; a second call does nothing."""
        self._handle = None
        self._handles.close()


class Model(_Owner):
    """A model file, mapped into memory, and its vocabulary.

    Attributes:
        header: what the file says of itself.
        vocabulary_size: how many tokens there are.
        context_trained: the longest context that it was trained for, in tokens.
        bos: the token that begins a text, None if there is none.
        eos: the token that ends a text, None if there is none.
        adds_bos: whether its tokenizer puts `bos` before every text.
    """

    def __init__(
        self, path: Path, *, repack: bool = True, admit: Callable[[Header], None] = lambda header: None
    ) -> None:
        """Load the model.

        Args:
            path: a GGUF file.
            admit: is shown the header before anything is loaded, and raises if it is not to be.
            repack: lay weights out anew for this processor where there are kernels for that. They are
                quicker, but on some kinds of processors they round activations otherwise.

        Raises:
            ModelFileError: the file is not a GGUF, is damaged, or holds what this build cannot run.
        """
        super().__init__()
        self.header = read_header(path, passing_over=("tokenizer.ggml.merges",))
        check_model(self.header)
        admit(self.header)
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
        params.use_extra_bufts = repack
        handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not handle:
            raise ModelFileError(f"{path}: {_log.reason()}")
        self.own(handle, llama_cpp.llama_model_free)
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self.context_trained: int = llama_cpp.llama_model_n_ctx_train(self.handle)
        bos, eos = llama_cpp.llama_vocab_bos(self._vocabulary), llama_cpp.llama_vocab_eos(self._vocabulary)
        self.bos: int | None = bos if bos >= 0 else None
        self.eos: int | None = eos if eos >= 0 else None
        self._pieces: dict[int, bytes] = {}  # as these and the next are asked for
        self._ends: dict[int, bool] = {}
        self.adds_bos = self.bos is not None and bool(llama_cpp.llama_vocab_get_add_bos(self._vocabulary))

    @property
    def _vocabulary(self) -> Any:
        return llama_cpp.llama_model_get_vocab(self.handle)

    @cached_property
    def description(self) -> str:
        """Family, size and type in a few words, as llama.cpp has it."""
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """The tokens of `text`.

        Args:
            text: any text; none is taken for a control token unless `special`.
            special: whether the names of control tokens stand for them.
            bos: whether to begin as the model's tokenizer begins a text.
        """
        if self.header.metadata.get("tokenizer.ggml.pre") in NORMALISED:
            text = unicodedata.normalize("NFC", text)
        data = text.encode("utf-8", "replace")  # a lone surrogate has no UTF-8
        room = len(data) + 1
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), buffer, room, False, special)
        assert 0 <= count <= room, "a token stands for at least one byte"
        begin = [self.bos] if bos and self.adds_bos and self.bos is not None else []
        return [*begin, *buffer[:count]]

    def piece(self, token: int) -> bytes:
        """The bytes of a token, which need not be whole characters; none for a control token."""
        if token not in self._pieces:
            self._pieces[token] = self._piece(token)
        return self._pieces[token]

    def _piece(self, token: int) -> bytes:
        self.check_tokens((token,))
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]

    def ends(self, token: int) -> bool:
        """Whether the token ends a turn or a text."""
        if token not in self._ends:
            self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))
        return self._ends[token]

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """The control tokens by name: those that a text from outside must never turn into."""
        metadata, vocabulary = self.header.metadata, self._vocabulary
        names, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
        found = (
            token
            for token, (name, type_) in enumerate(zip(names, types, strict=True))
            # llama.cpp also makes control tokens of normal ones by name, and all those names begin like this.
            if (type_ != llama_cpp.LLAMA_TOKEN_TYPE_NORMAL or name.startswith(("<", "[", "_", "▁")))
            and llama_cpp.llama_vocab_get_attr(vocabulary, token) & CONTROL
        )
        return {llama_cpp.llama_vocab_get_text(vocabulary, token).decode(*_NAMES): token for token in found}

    @cached_property
    def digit_tokens(self) -> tuple[int, ...]:
        """The tokens that make a number before them longer."""
        names = self.header.metadata["tokenizer.ggml.tokens"]  # where digits and points are themselves
        return tuple(token for token, name in enumerate(names) if _MORE_DIGITS.match(name))

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raise RequestError if one of them is not a token of this model."""
        wrong = next((token for token in tokens if not 0 <= token < self.vocabulary_size), None)
        if wrong is not None:
            raise RequestError(f"token {wrong} is not one of the model's {self.vocabulary_size}")


class Adapter(_Owner):
    """A low-rank adapter in a GGUF file, ready to be used by contexts of its model.

    Attributes:
        scale: how much of it to apply; 1 is as it was trained.
    """

    def __init__(self, model: Model, path: Path, scale: float = 1.0) -> None:
        """Load the adapter.

        Raises:
            ModelFileError: the file is not a GGUF, or is damaged.
            AdapterError: it is not a LoRA, or not one for this model.
        """
        super().__init__()
        if not math.isfinite(scale):
            raise AdapterError(f"{path}: the scale must be a finite number, not {scale}")
        self.path, self.scale = path, scale
        header = read_header(path)
        check_adapter(header, model.header)
        handle = llama_cpp.llama_adapter_lora_init(model.handle, os.fsencode(path))
        if not handle:
            raise AdapterError(f"{path}: {_log.reason()}")
        self.own(handle, llama_cpp.llama_adapter_lora_free)


@dataclass(frozen=True, slots=True)
class Room:
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


class Context(_Owner):
    """Keys and values of some sequences of a model, and the computation that grows them.

    Every sequence has cells of its own: one that is full takes nothing from another.
    """

    def __init__(
        self,
        model: Model,
        room: Room,
        adapter: Adapter | None = None,
        tap: Tap | None = None,
        look_up_tap: LookUpTap | None = None,
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
        self._watch = Watch(tap, look_up_tap) if tap or look_up_tap else None
        handle = llama_cpp.llama_init_from_model(model.handle, _params(room, self._watch))
        if not handle:
            raise RequestError(f"no context of {room.slots} times {room.context} tokens: {_log.reason()}")
        self.own(handle, llama_cpp.llama_free)
        resting = Resting()  # so that the thread's workers outlast a batch
        DRIVER.attach(resting)
        self._handles.callback(DRIVER.detach, resting)
        self._batch = _Batch(room.batch)
        self._row: Any = ctypes.c_float * model.vocabulary_size
        self._views: dict[int, Array] = {}  # by address: the library has its rows mostly where it had them
        self._adapter: Adapter | None = None
        self.apply(adapter)

    @property
    def _memory(self) -> Any:
        return llama_cpp.llama_get_memory(self.handle)

    def apply(self, adapter: Adapter | None) -> None:
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
            raise AdapterError(f"adapter {adapter and adapter.path}: status {status}: {_log.reason()}")
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
        status = DRIVER.call(partial(llama_cpp.llama_decode, self.handle, self._batch.native))
        if self._watch is not None:
            self._watch.raise_failure()
        if status:
            raise ModelFileError(
                f"{self.model.header.path}: decoding failed (status {status}): {_log.reason()}"
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

    def logits_row(self, row: int) -> Array:
        """The logits at a batch index that decode() gave, (vocab,): a view until the next decode()."""
        address = _logits_address(self.handle, row)
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
                f"{self.model.header.path}: slot {slot} could not be cleared: {_log.reason()}"
            )

    def nbytes(self, slot: int) -> int:
        """How large save() of a sequence is."""
        self._check_slot(slot)
        return int(llama_cpp.llama_state_seq_get_size(self.handle, slot))

    def save(self, slot: int) -> NDArray[np.uint8]:
        """A copy of the keys and values of a sequence, for restore() in a context of the same kind."""
        blob = np.empty(self.nbytes(slot), np.uint8)
        written = llama_cpp.llama_state_seq_get_data(self.handle, _bytes(blob), len(blob), slot)
        assert written == len(blob), "the library writes what it says"
        return blob

    def restore(self, slot: int, blob: NDArray[np.uint8], length: int) -> bool:
        """Put the first `length` tokens of a saved sequence into an empty slot.

        It has to come from a context of the same model, adapter, type and number of slots.

        Returns:
            Whether the library took it; if not, the slot is empty.
        """
        self._check_slot(slot)
        read = llama_cpp.llama_state_seq_set_data(self.handle, _bytes(blob), len(blob), slot)
        taken = read == len(blob) and self.used(slot) >= length
        self.clear(slot, length if taken else 0)
        if not taken:
            _log.reason()  # it is nobody's error, and not to be told with the next one
        return taken

    def used(self, slot: int) -> int:
        """How many tokens a sequence holds."""
        self._check_slot(slot)
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, slot)) + 1


class Sampler(_Owner):
    """How one sequence chooses its tokens, in native code; it remembers where its random numbers are."""

    def __init__(self, model: Model, sampling: Sampling, grammar: Grammar | None = None) -> None:
        """Begin a sequence.

        Args:
            model: whose tokens are chosen.
            sampling: how.
            grammar: what they must follow.

        Raises:
            RequestError: llama.cpp does not take the grammar.
        """
        super().__init__()
        self._model, self._sampling = model, sampling
        self._constraint = Constraint(model, grammar) if grammar else None
        if self._constraint:
            self._handles.callback(self._constraint.close)
        self.own(_chain(_links(sampling)), llama_cpp.llama_sampler_free)

    @cached_property
    def _without_digits(self) -> Any:
        chain = _chain((_bar(self._model, self._model.digit_tokens), *_links(self._sampling)))
        self._handles.callback(llama_cpp.llama_sampler_free, chain)
        return chain

    def sample(self, context: Context, row: int, *, no_digit: bool = False) -> int:
        """Choose a token by the logits at a batch index that decode() returned.

        Args:
            context: which computed them.
            row: the index.
            no_digit: whether no token will do that could make a number before it longer.

        Raises:
            ModelFileError: the model computed something that is not a number.
        """
        chain = self._without_digits if no_digit else self.handle
        logits = context.logits_row(row)
        if self._sampling.greedy and not no_digit:
            token = int(logits.argmax())  # a chain would copy the vocabulary into a list of candidates first
        else:
            token = int(llama_cpp.llama_sampler_sample(chain, context.handle, row))
        # One look, not one for each token: NaN anywhere in the computation spreads over the whole row.
        if not math.isfinite(logits[token]):
            raise ModelFileError(f"{context.model.header.path}: the model's logits are not finite numbers")
        if self._constraint:
            # Mostly the choice follows the grammar, and then the whole vocabulary is not looked at.
            if not self._constraint.allows(token):
                token = self._constraint.choose(chain, logits)
            self._constraint.accept(token)
        return token


class Constraint(_Owner):
    """A grammar, and how far one sequence has come in it."""

    def __init__(self, model: Model, grammar: Grammar) -> None:
        """Compile the grammar.

        Raises:
            RequestError: llama.cpp does not take it.
        """
        super().__init__()
        handle = llama_cpp.llama_sampler_init_grammar(
            model._vocabulary, grammar.text.encode(), grammar.root.encode()
        )
        if not handle:
            raise RequestError(f"grammar: not compiled: {_log.reason()}")
        self.own(handle, llama_cpp.llama_sampler_free)
        self._path = model.header.path
        # The library would let them through inside strings, where they are no text.
        self._control = [token for token in model.control_tokens.values() if not model.ends(token)]

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        one, native = _candidates(np.array([token]), np.zeros(1))
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(native))
        return token not in self._control and bool(one["logit"][0] == 0)

    def choose(self, chain: Any, logits: Array) -> int:
        """Choose, by a chain of samplers, among the tokens that may come next.

        Args:
            chain: the samplers.
            logits: of all tokens, (vocab,).

        Raises:
            ModelFileError: there is none.
        """
        every, native = _candidates(np.arange(len(logits)), logits)
        every["logit"][self._control] = -np.inf
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(native))
        if not np.isfinite(every["logit"]).any():
            raise ModelFileError(f"{self._path}: no token of the model can follow the grammar here")
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(native))
        return int(native.data[native.selected].id)

    def accept(self, token: int) -> None:
        """Go on past a token; the library would end the process over one that may not come next."""
        llama_cpp.llama_sampler_accept(self.handle, token)


def _candidates(tokens: NDArray[np.int64], logits: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """Tokens as the library's samplers take them: an array of ours, and the native one laid over it."""
    data = np.zeros(len(tokens), _CANDIDATE)
    data["id"], data["logit"] = tokens, logits
    pointer = data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return data, llama_cpp.llama_token_data_array(pointer, len(data), -1, False)


def _bytes(blob: NDArray[np.uint8]) -> Any:
    return blob.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _chain(links: Iterable[Any]) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    if not chain:
        raise RequestError("llama.cpp could not make a sampler")
    for link in links:
        llama_cpp.llama_sampler_chain_add(chain, link)  # the chain owns its links
    return chain


def _bar(model: Model, tokens: Sequence[int]) -> Any:
    """A sampler that leaves out some tokens."""
    biases = (llama_cpp.llama_logit_bias * len(tokens))(*((token, -math.inf) for token in tokens))
    return llama_cpp.llama_sampler_init_logit_bias(model.vocabulary_size, len(tokens), biases)


def _params(room: Room, watch: Watch | None) -> Any:
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


def _links(sampling: Sampling) -> Iterator[Any]:
    """The samplers of a chain, in llama.cpp's own order."""
    if sampling.greedy:
        yield llama_cpp.llama_sampler_init_greedy()
        return
    yield llama_cpp.llama_sampler_init_top_k(sampling.top_k)
    yield llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1)
    yield llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1)
    yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
    yield llama_cpp.llama_sampler_init_dist(sampling.seed)
