"""Fakes of the native classes: each byte is a token, and methods check the preconditions of the real ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep
from typing import ClassVar, Self, Unpack, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from thirteen.errors import FileError
from thirteen.files.gguf.header import Header
from thirteen.runtime.engine import adapters as adapters_module
from thirteen.runtime.engine import dispatcher as dispatcher_module
from thirteen.runtime.engine import engine as engine_module
from thirteen.runtime.engine.dispatcher import EngineLoad
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.constraint import Constraint
from thirteen.runtime.llama.context import Span
from thirteen.runtime.native.compute_thread import COMPUTE_THREAD
from thirteen.runtime.native.settings import GpuLayers, Settings
from thirteen.runtime.plan.memory import MemoryEstimate
from thirteen.runtime.plan.options import QUEUE, EngineOptions, default_settings, named_adapters
from thirteen.runtime.plan.plan import EnginePlan
from thirteen.runtime.request import Sampling, TokenLogprob

from .fixed_settings import FIXED

END_OF_TURN = 256


class Native:
    """Base class of the fakes; counts the open ones."""

    open_count = 0

    def __init__(self) -> None:
        Native.open_count += 1
        self.open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        Native.open_count -= self.open
        self.open = False


class Model(Native):
    bos, eos, begin, context_trained, vocabulary_size = None, END_OF_TURN, (), 100, 257
    rewinds = cuts_states = True
    control_tokens: ClassVar[dict[str, int]] = {"<end>": END_OF_TURN}
    stripping_tokens = frozenset[str]()

    def __init__(
        self, header: Header, repack: bool = True, gpu_layers: GpuLayers = 0, library: str = "llama.cpp"
    ) -> None:
        super().__init__()
        self.header = header

    def tokenize(self, text: str, *, special: bool, bos: bool, continues: bool = False) -> list[int]:
        return list(text.encode())

    def max_bytes(self, tokens: int) -> int:
        return 12 * tokens

    def token_to_piece(self, token: int) -> bytes:
        return b"" if token == END_OF_TURN else bytes((token,))

    def is_eog(self, token: int) -> bool:
        return token == END_OF_TURN

    def foreign_share(self, text: str) -> None:
        """The vocabulary is not trimmed."""

    def check_tokens(self, tokens: Sequence[int]) -> None:
        assert all(0 <= token < self.vocabulary_size for token in tokens)


class Adapter(Native):
    def __init__(self, model: Model, path: Path) -> None:
        super().__init__()
        self.path, self.metadata = path, dict[str, object]()
        ADAPTERS[path] = self


ADAPTERS: dict[Path, Adapter] = {}  # loaded adapters


class Context(Native):
    """Stores the tokens of each slot, and the adapter under which they were computed."""

    fail = False
    gate = Event()  # every decode() waits for it
    seconds = 0.0  # duration of a decode()

    def __init__(self, model: Model, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings, self.computed = model, settings, 0
        self.tokens: dict[int, list[int]] = {slot: [] for slot in range(settings.slots)}
        self.rows: list[list[int]] = []  # for each row of logits, all tokens before it
        self.adapter: Adapter | None = None
        self.slot_adapters: dict[int, Adapter | None] = {}

    def set_adapter(self, adapter: Adapter | None) -> None:
        self.adapter = adapter

    def decode(self, spans: Sequence[Span]) -> list[int]:
        assert Context.gate.wait(10)
        sleep(Context.seconds)
        if Context.fail:
            raise FileError("decoding failed")
        assert [span.slot for span in spans] == sorted({span.slot for span in spans})
        assert sum(len(span.tokens) for span in spans) <= self.settings.batch
        assert sum(span.rows for span in spans) <= self.settings.outputs
        self.rows = []
        for span in spans:
            tokens = self.tokens[span.slot]
            assert span.start == len(tokens)
            assert not tokens or self.slot_adapters[span.slot] is self.adapter, "KV cache of another adapter"
            self.slot_adapters[span.slot] = self.adapter
            tokens += span.tokens
            assert len(tokens) <= self.settings.context
            self.computed += len(span.tokens)
            self.rows += [tokens[: len(tokens) - later] for later in reversed(range(span.rows))]
        return list(range(len(self.rows)))

    def clear(self, slot: int, start: int = 0) -> None:
        del self.tokens[slot][start:]

    def state_bytes(self, slot: int) -> int:
        return 8 * (1 + len(self.tokens[slot]))

    def save(self, slot: int) -> NDArray[np.uint8]:
        return np.array([id(self.slot_adapters[slot]), *self.tokens[slot]], np.int64).view(np.uint8)

    def restore(self, slot: int, state: NDArray[np.uint8], length: int) -> bool:
        assert not self.tokens[slot]
        adapter, *tokens = state.view(np.int64).tolist()
        self.tokens[slot] = tokens[:length]
        self.slot_adapters[slot] = next(a for a in (None, *ADAPTERS.values()) if id(a) == adapter)
        return True

    def move(self, slot: int, target: int) -> bool:
        self.restore(target, self.save(slot), len(self.tokens[slot]))
        self.clear(slot)
        return True

    def logprob(self, row: int, token: int, top: int) -> TokenLogprob:
        return TokenLogprob(token, -0.5, ((token, -0.5),)[:top])


class FreeSampler(Native):
    """Base class of the fake samplers, which have no grammar."""

    finished = False

    def accept(self, token: int) -> None:
        """It has no penalties."""

    def take_forced(self) -> Sequence[int]:
        return ()


class EchoSampler(FreeSampler):
    """Repeats the prompt, then ends the turn."""

    def __init__(self, model: Model, sampling: Sampling, constraint: Constraint | None) -> None:
        super().__init__()
        self.remaining: list[int] | None = None

    def sample(self, context: Context, row: int, *, no_digit: bool = False) -> int:
        if self.remaining is None:
            self.remaining = list(context.rows[row])
        while no_digit and self.remaining and chr(self.remaining[0]).isdigit():
            self.remaining.pop(0)
        return self.remaining.pop(0) if self.remaining else END_OF_TURN


def fake_plan(options: EngineOptions) -> EnginePlan:
    """The plan of an engine over the fakes, which cannot be measured."""
    header = Header(Path("fake.gguf"), version=3, fields={}, tensors={}, file_bytes=0)
    usual = default_settings(options)
    settings = replace(usual, context=min(usual.context, Model.context_trained))
    memory = MemoryEstimate(0, 0, 0, 0, 0, 0, 0)
    queue = options.get("queue", QUEUE)
    adapters = {name: Path(file) for name, file in named_adapters(options).items()}
    return EnginePlan(header, settings, memory, Model.context_trained, adapters, queue)


@contextmanager
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """Yield a function that opens an engine over the fakes; at the end, close all and check for leaks."""
    for module, name, fake in (
        (engine_module, "Model", Model),
        (adapters_module, "LoraAdapter", Adapter),
        (engine_module, "LoraAdapter", Adapter),
        (dispatcher_module, "Sampler", EchoSampler),
        (engine_module, "Context", Context),
    ):
        monkeypatch.setattr(module, name, fake)
    monkeypatch.setattr(Context, "fail", False)
    monkeypatch.setattr(Context, "seconds", 0.0)
    Context.gate.set()
    engines: list[Engine] = []
    attached = len(COMPUTE_THREAD._attached)  # models that other tests of this process share
    defaults: EngineOptions = FIXED | {"slots": 2, "batch": 4}

    def open_engine(**options: Unpack[EngineOptions]) -> Engine:
        engines.append(Engine(fake_plan(defaults | options)))
        return engines[-1]

    yield open_engine
    Context.gate.set()
    for engine in engines:
        context = cast(Context, engine._runner._context)
        engine.close()
        assert not any(context.tokens.values()), "a slot leaks"
        assert engine.load == EngineLoad(0, 0), "a request leaks"
        places = engine._dispatcher.slots + engine._dispatcher.queue
        assert engine._dispatcher._places.qsize() == places, "a place leaks"
    ADAPTERS.clear()
    assert Native.open_count == 0, "a native handle leaks"
    assert len(COMPUTE_THREAD._attached) == attached, "the compute thread would not end"
