"""Fakes of the native classes: one token per byte, and each checks the preconditions of the real one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from threading import enumerate as enumerate_threads
from time import sleep
from zlib import crc32

import numpy as np
import pytest
from thirteen.errors import ModelFileError
from thirteen.runtime.engine import dispatcher as dispatcher_module
from thirteen.runtime.engine import engine as engine_module
from thirteen.runtime.engine.dispatcher import EngineLoad
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import TokenLogprob

END_OF_TURN = 256
LORAS = {}  # loaded adapters by path


class Native:
    """Base of the fakes: counts those that are not closed yet."""

    alive = 0

    def __init__(self):
        Native.alive += 1
        self.open = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        Native.alive -= self.open
        self.open = False


class Model(Native):
    bos, eos, adds_bos, context_trained, vocabulary_size = None, END_OF_TURN, False, 100, 257
    control_tokens = {"<end>": END_OF_TURN}  # noqa: RUF012

    def __init__(self, path, repack=True, check_header=None):
        super().__init__()
        self.header = type("Header", (), {"metadata": {}, "path": path})()

    def tokenize(self, text, *, special, bos):
        return list(text.encode())

    def token_to_piece(self, token):
        return b"" if token == END_OF_TURN else bytes((token,))

    def is_eog(self, token):
        return token == END_OF_TURN

    def check_tokens(self, tokens):
        assert all(0 <= token < self.vocabulary_size for token in tokens)


class Adapter(Native):
    def __init__(self, model, path):
        super().__init__()
        self.path = path


class Context(Native):
    """Holds each slot's tokens, and the adapter under which they were computed."""

    fail = False
    gate = Event()  # every decode() waits for it
    seconds = 0.0  # duration of a decode()

    def __init__(self, model, params):
        super().__init__()
        self.model, self.params, self.computed = model, params, 0
        self.tokens, self.rows = {slot: [] for slot in range(params.slots)}, []
        self.adapter, self.slot_adapters = None, {}

    def set_adapter(self, adapter):
        self.adapter = adapter

    def decode(self, spans):
        assert Context.gate.wait(10)
        sleep(Context.seconds)
        if Context.fail:
            raise ModelFileError("decoding failed")
        assert [span.slot for span in spans] == sorted({span.slot for span in spans})
        assert sum(len(span.tokens) for span in spans) <= self.params.batch
        assert sum(span.rows for span in spans) <= self.params.outputs
        self.rows = []  # for each row of logits, all tokens before it
        for span in spans:
            tokens = self.tokens[span.slot]
            assert span.start == len(tokens)
            assert not tokens or self.slot_adapters[span.slot] is self.adapter, "KV cache of another adapter"
            self.slot_adapters[span.slot] = self.adapter
            tokens += span.tokens
            assert len(tokens) <= self.params.context
            self.computed += len(span.tokens)
            self.rows += [tokens[: len(tokens) - later] for later in reversed(range(span.rows))]
        return list(range(len(self.rows)))

    def clear(self, slot, start=0):
        del self.tokens[slot][start:]

    def state_bytes(self, slot):
        return 8 * (1 + len(self.tokens[slot]))

    def save(self, slot):
        return np.array([id(self.slot_adapters[slot]), *self.tokens[slot]], np.int64).view(np.uint8)

    def restore(self, slot, state, length):
        assert not self.tokens[slot]
        adapter, *tokens = state.view(np.int64).tolist()
        self.tokens[slot] = tokens[:length]
        self.slot_adapters[slot] = next(a for a in (None, *LORAS.values()) if id(a) == adapter)
        return True

    def logprob(self, row, token, top):
        return TokenLogprob(token, -0.5, ((token, -0.5),)[:top])


class Echo(Native):
    """Repeats its prompt, then ends the turn: drafts by prompt lookup are mostly right."""

    def __init__(self, model, sampling, grammar):
        super().__init__()
        self.remaining = None

    def sample(self, context, row, *, no_digit=False):
        self.remaining = list(context.rows[row]) if self.remaining is None else self.remaining
        while no_digit and self.remaining and chr(self.remaining[0]).isdigit():
            self.remaining.pop(0)
        return self.remaining.pop(0) if self.remaining else END_OF_TURN


class HashSampler(Native):
    """Chooses by a hash of the seed and the last four tokens: drafts by the last three are often wrong.

    Like a model it depends on all tokens before a row, so a wrong one among them changes its choice.
    """

    after_digit, words = b"++*==1. ", (*b"1121 a.", END_OF_TURN)

    def __init__(self, model, sampling, grammar):
        super().__init__()
        self.seed = sampling.seed

    def sample(self, context, row, *, no_digit=False):
        seen = context.rows[row][-4:]
        choice = self.after_digit if chr(seen[-1]).isdigit() else self.words
        if no_digit:
            choice = [word for word in choice if not chr(word).isdigit()]
        return choice[crc32(repr((self.seed, seen)).encode()) % len(choice)]


@contextmanager
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """Yields a function that opens an engine over the fakes; at the end closes all and checks for leaks."""

    def lora(model, path):
        LORAS[path] = Adapter(model, path)
        return LORAS[path]

    for module, name, fake in (
        (engine_module, "Model", Model),
        (engine_module, "LoraAdapter", lora),
        (dispatcher_module, "Sampler", Echo),
        (engine_module, "Context", Context),
    ):
        monkeypatch.setattr(module, name, fake)
    monkeypatch.setattr(Context, "fail", False)
    monkeypatch.setattr(Context, "seconds", 0.0)
    Context.gate.set()
    engines = []

    def make(**options):
        engines.append(Engine("fake.gguf", **{"slots": 2, "batch": 4, "threads": 1} | options))
        return engines[-1]

    yield make
    Context.gate.set()
    for engine in engines:
        context = engine._runner._context
        engine.close()
        assert not any(context.tokens.values()), "a slot leaks"
        assert engine.load == EngineLoad(0, 0), "a request leaks"
        places = engine._dispatcher.slots + engine._dispatcher.queue
        assert all(engine._dispatcher._places.acquire(blocking=False) for _ in range(places)), "a place leaks"
    LORAS.clear()
    assert Native.alive == 0, "a native handle leaks"
    assert not [thread for thread in enumerate_threads() if thread.name == "thirteen-engine"]
