"""Program of the process that compares a library with llama.cpp on a file; library_proof.py starts it.

Its arguments are the library, a number of threads, whether to repack weights, a model, and adapters of the
model. It does with both, one after the other, what an engine does, and writes one line of JSON: the first
problem, if any, and whether to try again later.
"""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import FileError, ThirteenError
from ..logits import log_softmax
from ..machine.resource_limits import lower_limit
from ..native.settings import LIBRARIES, Settings
from .context import Context, Span
from .gguf_checks import read_model_header
from .model import LoraAdapter, Model

if TYPE_CHECKING:
    from ...files.gguf.header import Header
    from ...stats.arrays import Floats

KL_MAX = 0.005  # nats, mean of many predictions: rounded activations cost 0.001
FEW_MAX, _FEW = 0.05, 16  # of few predictions, which rounding may move by 0.01, and errors by more than 1
SAME_MAX = 0.001  # of one library after a copy or a cut: the batch has another shape, and rounds otherwise
EFFECT_MAX = 0.05  # share by which an adapter's effect may differ
_EFFECT_MIN = 1e-4  # nats; below it rounding is larger than an adapter's effect
_PROBE, _LONG, _BATCH = 64, 320, 128  # tokens
_WIDE, _STEPS = 16, 2  # sequences at once, and how often
_BLOCK, _SHORT = 32, 8  # cells that are looked at together; a sequence that is within a block
_CHANGE = 16  # tokens of a sequence before adapters change
_TEXT = " ".join(
    f"Line {number}: Tom has {number * 37 % 101} apples and buys {number * 53 % 97} more; what does he pay?"
    for number in range(40)
)

Logits = dict[str, "Floats"]  # by what was done, (rows, vocab)


def main() -> None:
    """Compare; the exit status is 0 also where a problem was found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that started this one
    library, threads, repack, model, *adapters = sys.argv[1:]
    settings = Settings(
        *(_LONG + 1, _WIDE, _BATCH, _PROBE),
        threads=int(threads),
        repack=repack == "1",
        flash_attention=False,
        library=library,
    )
    lower_limit("RLIMIT_CORE", 0)
    try:
        problem, again = next(_problems(settings, Path(model), [*map(Path, adapters)]), ""), False
    except (ThirteenError, MemoryError) as error:
        problem = str(error) or "out of memory"
        again = isinstance(error, MemoryError) or "alloc" in problem  # of what the libraries say
    print(json.dumps({"problem": problem, "again": again}), flush=True)


def _problems(settings: Settings, path: Path, adapters: Sequence[Path]) -> Iterator[str]:
    """Describe what differs, the models first, then each adapter."""
    header = read_model_header(path)
    usual = replace(settings, library=LIBRARIES[0], flash_attention=True)
    theirs, ours = (_observe_all(one, header, adapters) for one in (usual, settings))
    yield from _differences(theirs[0], ours[0])
    for file, *both in zip(adapters, theirs[1:], ours[1:], strict=True):
        yield from _differences(*both)
        bases = theirs[0], ours[0]
        effects = [_kl(one["probe"], other["probe"]) for one, other in zip(bases, both, strict=True)]
        if max(effects) > _EFFECT_MIN and abs(effects[1] / effects[0] - 1) > EFFECT_MAX:
            yield (
                f"{file.name} moves its predictions by {effects[1]:.4f} nats, and llama.cpp's by "
                f"{effects[0]:.4f}"
            )


def _observe_all(settings: Settings, header: "Header", adapters: Sequence[Path]) -> list[Logits]:
    """Predictions without and with each adapter. Only one library's weights are in memory at a time."""
    with Model(header, repack=settings.repack, library=settings.library) as model:
        observed = [_observe(model, settings)]
        for file in adapters:
            with LoraAdapter(model, file) as adapter:
                observed.append(_observe(model, settings, adapter))
    return observed


def _differences(theirs: Logits, ours: Logits) -> Iterator[str]:
    for what, expected in theirs.items():
        divergence = _kl(expected, ours[what])
        if not divergence <= (KL_MAX if len(expected) >= _FEW else FEW_MAX):
            yield f"{what}: a KL divergence of {divergence:.4f} nats from llama.cpp's predictions"
    for what, same in (("copy", "original"), ("cut", "before the cut")):
        divergence = _kl(ours[same], ours[what])
        if not divergence <= SAME_MAX:
            yield f"a {what} of a sequence predicts something else, by {divergence:.4f} nats"


def _kl(expected: "Floats", found: "Floats") -> float:
    theirs, ours = map(log_softmax, (expected, found))
    return float((np.exp(theirs) * (theirs - ours)).sum(-1).mean())


def _observe(model: Model, settings: Settings, adapter: LoraAdapter | None = None) -> Logits:
    """Predictions of a library after each thing that an engine does."""
    tokens = tuple(model.tokenize(_TEXT, special=False, bos=True))
    usable = model.context_trained - 1
    length = min(_LONG, usable - usable % _BLOCK or usable)
    with Context(model, replace(settings, context=length + 1), adapter) as context:
        observed = _Observations(context, (tokens * length)[:length])
        if adapter:
            observed.change(adapter)
    return {what: np.array(rows) for what, rows in observed.rows.items()}


class _Observations:
    """Rows of logits by what was done."""

    def __init__(self, context: Context, tokens: tuple[int, ...]) -> None:
        """Compute several sequences at once, a long prompt in batches, a copy of its sequence, and cuts."""
        self._context, self._tokens = context, tokens
        self.rows: dict[str, list[Floats]] = {}
        probe, end = tokens[: min(_PROBE, len(tokens) // 2)], len(tokens)
        start = len(probe)
        self._decode("probe", Span(0, 0, probe, start))
        lengths = [max(1, start - slot) for slot in range(_WIDE)]
        self._copy(lengths)
        for step in range(min(_STEPS, end - start)):
            places = [length + step for length in lengths]
            many = [Span(slot, at, tokens[at : at + 1], 1) for slot, at in enumerate(places)]
            self._decode(f"{_WIDE} sequences at once", *many)
        for slot in range(_WIDE):
            context.clear(slot, start if not slot else 0)
        for at in range(start, end, _BATCH):
            self._decode("a long prompt", Span(0, at, tokens[at : at + _BATCH], 1))
        self._copy([end, end])
        for slot, what in enumerate(("original", "copy")):
            self._decode(what, Span(slot, end, tokens[:1], 1))
        context.clear(0)
        context.clear(1, short := min(_SHORT, start))
        self._decode("behind a sequence that has ended", Span(1, short, tokens[short : short + 1], 1))
        self._decode("before the cut", Span(0, 0, probe, 1))
        context.clear(1, short // 2)
        self._decode("cut", Span(1, short // 2, probe[short // 2 :], 1))

    def change(self, adapter: LoraAdapter) -> None:
        """Compute two sequences token by token, one with an adapter and one without."""
        adapters = (adapter, None)
        length = min(_CHANGE, len(self._tokens) - _STEPS)
        for slot, one in enumerate(adapters):
            self._context.clear(slot)
            self._context.set_adapter(one)
            self._context.decode([Span(slot, 0, self._tokens[:length], 0)])
        for at in range(length, length + _STEPS):
            for slot, one in enumerate(adapters):
                self._context.set_adapter(one)
                self._decode("a change of the adapter", Span(slot, at, self._tokens[at : at + 1], 1))

    def _decode(self, what: str, *spans: Span) -> None:
        rows = self._context.decode(spans)
        self.rows.setdefault(what, []).extend(self._context.logits_row(row).copy() for row in rows)

    def _copy(self, lengths: Sequence[int]) -> None:
        """Copy slot 0, all or its beginning, to as many slots as there are lengths."""
        state = self._context.save(0)
        for slot, length in enumerate(lengths):
            if slot and not self._context.restore(slot, state, length):
                raise FileError("a saved sequence is not restored")
