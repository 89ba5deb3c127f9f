"""Program of the process that loads files on trial; load_probe.py starts it.

Its arguments are the seconds of processor time and the bytes of address space that it may use, a model, and
adapters of the model. It writes a line of JSON when it begins with a file, and one for an error.
"""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import FileError, RequestError, ThirteenError
from ...files.gguf.pooling import read_pooling
from ..machine.resource_limits import limit_address_space, limit_processor_time, lower_limit
from ..native.settings import KV_TYPES, Settings
from .context import Context, Span
from .embedding_context import EmbeddingContext
from .gguf_checks import is_checked, read_model_header
from .model import LoraAdapter, Model

_SETTINGS = Settings(context=1, slots=1, batch=1, threads=1)
# All ways to compute that a user can choose, for a file whose tensors nothing has checked.
_CONTEXT, _BATCH, _PROMPT = 96, 16, 40  # tokens
_USUAL = Settings(_CONTEXT, slots=2, batch=_BATCH, threads=1)
_WAYS = (
    _USUAL,
    replace(_USUAL, flash_attention=False),
    *(replace(_USUAL, kv=kv) for kv in KV_TYPES if kv != _USUAL.kv),
    replace(_USUAL, outputs=_BATCH, exact=True),
)
_TEXT = (
    "".join(map(chr, range(1, 0x300)))
    + "  \n\n\t\r\n 12345 don't \u4e2d\u6587 \u0639\u0631\u0628 \U0001f600 e\u0301"
)


def main() -> None:
    """Load the files; the exit status is 2 after an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that started this one
    seconds, nbytes = map(int, sys.argv[1:3])
    model, *adapters = map(Path, sys.argv[3:])
    lower_limit("RLIMIT_CORE", 0)
    limit_processor_time(seconds)
    limit_address_space(nbytes)
    try:
        _load(model, adapters)
    except MemoryError:
        _fail(FileError(f"{model}: a trial load needs more than {nbytes:,} bytes of memory"))
    except ThirteenError as error:
        _fail(error)


def _load(path: Path, adapters: list[Path]) -> None:
    _write({"file": str(path)})
    with Model(read_model_header(path), repack=False) as model:
        try_model = _decode if is_checked(model.header) else _try_all
        try_model(model, None)
        for file in adapters:
            _write({"file": str(file)})
            with LoraAdapter(model, file) as adapter:
                try_model(model, adapter)


def _decode(model: Model, adapter: LoraAdapter | None) -> None:
    token, *_ = (*model.tokenize("1", special=False, bos=True), 0)
    with Context(model, _SETTINGS, adapter) as context:
        context.decode([Span(0, 0, (token,), rows=1)])


def _try_all(model: Model, adapter: LoraAdapter | None) -> None:
    """Do what an engine does, so that llama.cpp ends this process rather than that of the engine.

    Raises:
        FileError: the model cannot be computed, or its states cannot be restored.
    """
    tokens = tuple(model.tokenize(_TEXT, special=False, bos=True))
    model.tokenize(" ".join((*model.control_tokens, _TEXT[::-1])), special=False, bos=False, continues=True)
    for token in range(model.vocabulary_size):
        model.token_to_piece(token)
    prompt = (tokens * _PROMPT)[:_PROMPT] or (0,) * _PROMPT
    for way in _WAYS:
        try:
            way_here = replace(way, context=(most := min(way.context, model.context_trained)))
            if read_pooling(model.header):
                way_here = replace(way_here, batch=most, outputs=most)
                context: Context = EmbeddingContext(model, way_here, adapter)
            else:
                context = Context(model, way_here, adapter)
        except RequestError:  # llama.cpp refuses this way; so it does in an engine
            if way is _USUAL:
                raise
            continue
        with context:
            half = prompt[: context.settings.context // 2]
            if isinstance(context, EmbeddingContext):
                context.embed([half, half[:1]])
            else:
                _try_way(context, half)


def _try_way(context: Context, prompt: tuple[int, ...]) -> None:
    """Compute a long prompt in batches, two sequences at once, and one of them after it was restored."""
    end, all_rows = len(prompt), context.settings.outputs == _BATCH
    for start in range(0, end, _BATCH):
        part = prompt[start : start + _BATCH]
        context.decode([Span(0, start, part, rows=len(part) if all_rows else 1)])
    context.decode([Span(0, end, prompt[:1], rows=1), Span(1, 0, prompt[:8], rows=1)])
    state = context.save(1)
    context.clear(1)
    if not context.restore(1, state, len(prompt[:8])):
        raise FileError(f"{context.model.header.path}: llama.cpp does not restore a saved sequence")
    context.decode([Span(slot, at, prompt[:1], rows=1) for slot, at in ((0, end + 1), (1, len(prompt[:8])))])
    if context.model.rewinds:
        context.clear(0, end // 2)
        context.decode([Span(0, end // 2, prompt[:2], rows=1)])


def _fail(error: ThirteenError) -> None:
    _write({"error": type(error).__name__, "args": error.args})
    sys.exit(2)


def _write(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)
