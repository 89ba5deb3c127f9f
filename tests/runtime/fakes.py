"""A model that is a fake: one token for each byte, and every native part checks what the real one demands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from threading import enumerate as enumerate_threads
from time import sleep
from zlib import crc32

import numpy as np
import pytest
from thirteen.errors import ModelFileError
from thirteen.runtime.engine import dispatcher as intake_module
from thirteen.runtime.engine import engine as engine_module
from thirteen.runtime.engine.dispatcher import EngineLoad
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import TokenLogprob

END_OF_TURN = 256
LORAS = {}  # by path, those that are loaded


class Native:
    """What the fakes share: freed once, and counted while they are not."""

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

    def __init__(self, path, repack=True, admit=None):
        super().__init__()
        self.header = type("Header", (), {"metadata": {}, "path": path})()

    def tokenize(self, text, *, special, bos):
        return list(text.encode())

    def piece(self, token):
        return b"" if token == END_OF_TURN else bytes((token,))

    def ends(self, token):
        return token == END_OF_TURN

    def check_tokens(self, tokens):
        assert all(0 <= token < self.vocabulary_size for token in tokens)


class Adapter(Native):
    def __init__(self, model, path):
        super().__init__()
        self.path = path


class Context(Native):
    """What has been computed of each slot: its tokens, and the adapter that they were computed under."""

    fail = False
    gate = Event()  # every decode waits for it
    seconds = 0.0  # that a decode takes

    def __init__(self, model, room):
        super().__init__()
        self.model, self.room, self.read = model, room, 0
        self.held, self.rows = {slot: [] for slot in range(room.slots)}, []
        self.adapter, self.under = None, {}

    def apply(self, adapter):
        self.adapter = adapter

    def decode(self, spans):
        assert Context.gate.wait(10)
        sleep(Context.seconds)
        if Context.fail:
            raise ModelFileError("decoding failed")
        assert [span.slot for span in spans] == sorted({span.slot for span in spans})
        assert sum(len(span.tokens) for span in spans) <= self.room.batch
        assert sum(span.rows for span in spans) <= self.room.outputs
        self.rows = []  # for each row of logits, all the tokens before it
        for span in spans:
            held = self.held[span.slot]
            assert span.start == len(held)
            assert not held or self.under[span.slot] is self.adapter, "keys and values of another adapter"
            self.under[span.slot] = self.adapter
            held += span.tokens
            assert len(held) <= self.room.context
            self.read += len(span.tokens)
            self.rows += [held[: len(held) - later] for later in reversed(range(span.rows))]
        return list(range(len(self.rows)))

    def clear(self, slot, start=0):
        del self.held[slot][start:]

    def nbytes(self, slot):
        return 8 * (1 + len(self.held[slot]))

    def save(self, slot):
        return np.array([id(self.under[slot]), *self.held[slot]], np.int64).view(np.uint8)

    def restore(self, slot, blob, length):
        assert not self.held[slot]
        adapter, *tokens = blob.view(np.int64).tolist()
        self.held[slot] = tokens[:length]
        self.under[slot] = next(a for a in (None, *LORAS.values()) if id(a) == adapter)
        return True

    def logprob(self, row, token, top):
        return TokenLogprob(token, -0.5, ((token, -0.5),)[:top])


class Echo(Native):
    """Says its prompt again, then ends the turn; so drafts by what stood before are mostly right."""

    def __init__(self, model, sampling, grammar):
        super().__init__()
        self.said = None

    def sample(self, context, row, *, no_digit=False):
        self.said = list(context.rows[row]) if self.said is None else self.said
        while no_digit and self.said and chr(self.said[0]).isdigit():
            self.said.pop(0)
        return self.said.pop(0) if self.said else END_OF_TURN


class Babbler(Native):
    """Says what the seed and the last four tokens decide; so drafts by the last three are often wrong.

    It is a function of all that a row has seen, as a model is: a wrong token before it shows.
    """

    behind_digits, words = b"++*==1. ", (*b"1121 a.", END_OF_TURN)

    def __init__(self, model, sampling, grammar):
        super().__init__()
        self.seed = sampling.seed

    def sample(self, context, row, *, no_digit=False):
        seen = context.rows[row][-4:]
        choice = self.behind_digits if chr(seen[-1]).isdigit() else self.words
        if no_digit:
            choice = [word for word in choice if not chr(word).isdigit()]
        return choice[crc32(repr((self.seed, seen)).encode()) % len(choice)]


@contextmanager
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """What opens an engine over the fakes; at the end all are closed, and nothing may have leaked."""

    def lora(model, path):
        LORAS[path] = Adapter(model, path)
        return LORAS[path]

    for room, name, fake in (
        (engine_module, "Model", Model),
        (engine_module, "LoraAdapter", lora),
        (intake_module, "Sampler", Echo),
        (engine_module, "Context", Context),
    ):
        monkeypatch.setattr(room, name, fake)
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
        native = engine._runner._native
        engine.close()
        assert not any(native.held.values()), "a slot leaks"
        assert engine.load == EngineLoad(0, 0), "a request leaks"
        places = engine._intake.slots + engine._intake.queue
        assert all(engine._intake._places.acquire(blocking=False) for _ in range(places)), "a place leaks"
    LORAS.clear()
    assert Native.alive == 0, "a native handle leaks"
    assert not [thread for thread in enumerate_threads() if thread.name == "thirteen-engine"]
