"""Trial of foreign files: another process, which may die of it, loads them and does what an engine does.

llama.cpp ends the process on much that it does not expect in a file. Here that is one line. The process
writes what it does next to standard error. The last line of an error is the reason, and the exit status 2.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Timer

from ..errors import FileError, RequestError, ThirteenError, as_line
from ..files.gguf.model_shape import read_pooling
from ..files.trusted_files import file_stamp, is_recorded, is_trusted, record, untrusted_by_default
from .llama.context import Context, Span
from .llama.embedding_context import EmbeddingContext
from .llama.llama_cpp_library import llama_cpp
from .llama.model import LoraAdapter, Model, read_model_header
from .llama.settings import KV_TYPES, LLAMA, Settings
from .memory import embedding_settings
from .prompt.chat_template import read_chat_template
from .prompt.prompt_encoder import Message, PromptEncoder

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_NOTICE_S = 2.0
_BYTES_PER_S = 15_000_000  # of processor time, which is a third of the time that a slow disk may need
_ADDRESS_BYTES, _ADDRESS_FACTOR = 2_000_000_000, 2
# ggml's abort() waits for a debugger, if it finds one. More threads would only need address space.
_ALONE = {"GGML_NO_BACKTRACE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ALONE |= {} if os.name == "nt" else {"PATH": os.devnull}
_SOURCE_FOLDER = re.compile(r"^/\S*/(?=\S+:[0-9]+: )")  # where the library was compiled
_CONTEXT, _BATCH = 8, 2  # tokens
_CONVERSATIONS = ("user", "system user", "user assistant user")
# Something of all planes of Unicode with all bytes of UTF-8, runs of spaces, and long words of each kind.
_TEXTS = (
    "".join(map(chr, range(1, 0x800)))
    + "".join(map(chr, range(0x800, 0x110000, 127)))
    + "  \n\n\t\r\n don't 12",
    *(letter * 4096 for letter in ("a", "1", " ", "\n", ".", "\u4e2d", "\u0301", "a ", "A1 ", "'s")),
)
_log = logging.getLogger(__name__)


def try_files(
    model: Path,
    adapters: Iterable[Path] = (),
    *,
    untrusted: bool | None = None,
    library: str = LLAMA,
    seconds: int = 20,
) -> None:
    """Try a model and its adapters in another process, unless this package wrote them or they have passed.

    `untrusted` tries all files, or none; by default, THIRTEEN_UNTRUSTED decides. The process gets so many
    seconds of processor time beside that of reading the files. FileError: a file cannot be used; it says why.
    OSError: there is no such file, or no process can be started.
    """
    untrusted = untrusted_by_default() if untrusted is None else untrusted
    if untrusted is False:
        return
    stamps = {model: file_stamp(model, library, version("llama-cpp-python"))}
    stamps |= {adapter: file_stamp(adapter, stamps[model]) for adapter in adapters}
    new = [
        path for path, stamp in stamps.items() if untrusted or not (is_trusted(path) or is_recorded(stamp))
    ]
    if new:
        files = [model, *(path for path in new if path != model)]
        _run(files, library, seconds)
        for path in files:
            record(stamps[path])


def _run(files: Sequence[Path], library: str, seconds: int) -> None:
    nbytes = sum(path.stat().st_size for path in files)
    seconds += nbytes // _BYTES_PER_S
    words = (seconds, _ADDRESS_BYTES + nbytes * _ADDRESS_FACTOR, library, *files)
    notice = Timer(_NOTICE_S, _log.warning, ("trying %s once in a separate process …", files[0].name))
    notice.start()
    try:
        timeout = 3 * seconds
        done = subprocess.run(  # noqa: S603 - own program
            # -P: not the working folder
            [sys.executable, "-P", "-m", "thirteen.runtime.trial", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1", **_ALONE},
            timeout=timeout,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows
        )
    except subprocess.TimeoutExpired as expired:
        raise FileError(_reason(files, f"takes more than {timeout} seconds", expired.stderr)) from None
    finally:
        notice.cancel()
    if status := done.returncode:
        raise FileError(_reason(files, _end(status), done.stderr))


def _end(status: int) -> str:
    """How the process ended; empty after an error, which its last line names."""
    if status == 2:
        return ""
    if status > 0:
        return f"failed with exit status {status}; THIRTEEN_UNTRUSTED=never turns trials off"
    return f"ended with {signal.Signals(-status).name}"


def _reason(files: Sequence[Path], end: str, output: bytes | None) -> str:
    """What the process was doing, how it ended, and why; without `end`, its last line says all."""
    lines = [f"{files[0]}: a trial", *(output or b"").decode("utf-8", "replace").splitlines()]
    lines = [*filter(None, map(as_line, lines))]
    if not end:
        return lines[-1]
    names = tuple(as_line(str(file)) for file in files)
    at = max(at for at, line in enumerate(lines) if line.startswith(names))
    said = lines[at + 1 :]  # an assertion, perhaps before a backtrace, or an exception
    why = next(filter(_SOURCE_FOLDER.match, said), said[-1] if said else "")
    return f"{lines[at]} {end}" + (f": {_SOURCE_FOLDER.sub('', why):.300}" if why else "")


def main() -> None:
    """Run the other process: its arguments are limits in seconds and bytes, the library, and the files."""
    seconds, nbytes = map(int, sys.argv[1:3])
    model, *adapters = files = [Path(word) for word in sys.argv[4:]]
    _lower_limit("RLIMIT_CORE", 0)
    _lower_limit("RLIMIT_CPU", seconds)
    if sys.platform == "linux":  # elsewhere it would not hold
        _lower_limit("RLIMIT_AS", nbytes)
    try:
        _try_files(model, adapters, library=sys.argv[3])
    except (ThirteenError, MemoryError) as error:
        reason = str(error) or f"a trial needs more than {nbytes:,} bytes of memory"
        print(reason if reason.startswith(tuple(map(str, files))) else f"{model}: {reason}", file=sys.stderr)
        sys.exit(2)


def _lower_limit(name: str, value: int) -> None:
    """Lower a limit, such as "RLIMIT_CORE", to `value`, where the system has it."""
    number = getattr(resource, name, None)
    if number is not None:
        with suppress(ValueError):  # the limit that cannot be raised is lower
            resource.setrlimit(number, (value, resource.getrlimit(number)[1]))


def _try_files(path: Path, adapters: list[Path], library: str) -> None:
    _say(path, f"loading in {library}")
    with Model(read_model_header(path), repack=False, library=library) as model:
        _read_vocabulary(model)
        _render_template(model)
        _compute(model, None)
        for file in adapters:
            _say(file, f"loading in {library}")
            with LoraAdapter(model, file) as adapter:
                _compute(model, adapter)


def _say(path: Path, what: str) -> None:
    print(f"{path}: {what}", file=sys.stderr, flush=True)


def _read_vocabulary(model: Model) -> None:
    """Read all pieces, and split texts: with some vocabularies that ends the process, or never ends."""
    path = model.header.path
    _say(path, "reading its vocabulary")
    all_tokens = (llama_cpp.llama_token * model.vocabulary_size)(*range(model.vocabulary_size))
    llama_cpp.llama_detokenize(model.vocab, all_tokens, len(all_tokens), None, 0, False, True)
    for text in _TEXTS:
        model.tokenize(text, special=False, bos=True)


def _render_template(model: Model) -> None:
    """Encode the sample conversations; a template may refuse all but a question alone."""
    _say(model.header.path, "rendering its chat template")
    encoder = PromptEncoder(model, read_chat_template(model))
    question, *others = ([Message(role, "1 + 1?") for role in roles.split()] for roles in _CONVERSATIONS)
    encoder.encode_conversation(question)
    for conversation in others:
        with suppress(RequestError):
            encoder.encode_conversation(conversation)


def _compute(model: Model, adapter: LoraAdapter | None) -> None:
    """Compute, also with each other attention and type of the KV cache that the library has for the model."""
    header, library = model.header, model.library.name
    _say(adapter.path if adapter else header.path, "computing")
    own, tokens = library == LLAMA, min(_CONTEXT, model.context_trained)
    usual = Settings(tokens, slots=2, batch=_BATCH, threads=1, flash_attention=own, library=library)
    if read_pooling(header):
        with EmbeddingContext(model, embedding_settings(header, usual)) as texts:
            texts.set_adapter(adapter)
            texts.embed([(0, 0, 0), (0,)])
        return
    with Context(model, usual) as context:
        context.set_adapter(adapter)
        _use(context)
    others = (replace(usual, kv=kv) for kv in KV_TYPES if kv != usual.kv)
    exact = replace(usual, flash_attention=False, exact=True, outputs=_BATCH)
    for way in (replace(usual, flash_attention=False), *others, exact) if own else ():
        with suppress(ThirteenError), Context(model, way) as context:
            context.set_adapter(adapter)
            context.decode([Span(0, 0, (0,), rows=1)])


def _use(context: Context) -> None:
    """Compute a prompt in two batches, two sequences at once, and both again: one is cut, one is restored."""
    model, token = context.model, (0,)
    context.decode([Span(0, 0, token * _BATCH, rows=1)])
    context.decode([Span(0, _BATCH, token, rows=1), Span(1, 0, token, rows=1)])
    state = context.save(1)
    context.clear(1)
    context.restore(1, state, 1)
    if model.rewinds:
        context.clear(0, _BATCH)
    context.decode([Span(0, _BATCH + (not model.rewinds), token, rows=1), Span(1, 1, token, rows=1)])


if __name__ == "__main__":
    main()
