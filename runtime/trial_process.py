"""Program of a trial's process, which trial.py starts: does with foreign files what an engine does.

It writes what it does next to standard error. The last line of an error is the reason, and the exit status 2.
"""

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import FileError, RequestError, ThirteenError
from ..files.gguf.pooling import read_pooling
from .llama.context import Context, Span
from .llama.embedding_context import EmbeddingContext
from .llama.llama_cpp_library import llama_cpp
from .llama.model import LoraAdapter, Model, read_model_header
from .llama.settings import KV_TYPES, LIBRARIES, Settings
from .memory import embedding_settings
from .prompt.chat_template import read_chat_template
from .prompt.prompt_encoder import Message, PromptEncoder

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_CONTEXT, _BATCH = 8, 2  # tokens
_CONVERSATIONS = ("user", "system user", "user assistant user")
# Something of all planes of Unicode with all bytes of UTF-8, runs of spaces, and long words of each kind.
_TEXTS = (
    "".join(map(chr, range(1, 0x800)))
    + "".join(map(chr, range(0x800, 0x110000, 127)))
    + "  \n\n\t\r\n don't 12",
    *(letter * 4096 for letter in ("a", "1", " ", "\n", ".", "\u4e2d", "\u0301", "a ", "A1 ", "'s")),
)


def main() -> None:
    """Try a model and adapters; the arguments are limits in seconds and bytes, the library, and the files."""
    seconds, nbytes = map(int, sys.argv[1:3])
    model, *adapters = files = [Path(word) for word in sys.argv[4:]]
    lower_limit("RLIMIT_CORE", 0)
    lower_limit("RLIMIT_CPU", seconds)
    if sys.platform == "linux":  # elsewhere it would not hold
        lower_limit("RLIMIT_AS", nbytes)
    try:
        _try_files(model, adapters, library=sys.argv[3])
    except (ThirteenError, MemoryError) as error:
        reason = str(error) or f"a trial needs more than {nbytes:,} bytes of memory"
        print(reason if reason.startswith(tuple(map(str, files))) else f"{model}: {reason}", file=sys.stderr)
        sys.exit(2)


def lower_limit(name: str, value: int) -> None:
    """Lower a limit, such as "RLIMIT_CORE", to `value`, where the system has it."""
    number = getattr(resource, name, None)
    if number is not None:
        limits = resource.getrlimit(number)
        least = min([value, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])
        resource.setrlimit(number, (least, limits[1]))


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
    """Read all pieces and split texts, and refuse vocabularies with which another text ends the process."""
    path = model.header.path
    _say(path, "reading its vocabulary")
    all_tokens = (llama_cpp.llama_token * model.vocabulary_size)(*range(model.vocabulary_size))
    llama_cpp.llama_detokenize(model.vocab, all_tokens, len(all_tokens), None, 0, False, True)
    _check_bytes(model)
    for text in _TEXTS:
        model.tokenize(text, special=False, bos=True)


def _check_bytes(model: Model) -> None:
    """Refuse vocabularies without a token for a byte that a text can have.

    SentencePiece ends the process at such a byte (unordered_map::at), and RWKV's tokenizer does not end.
    """
    tokenizer = model.header.metadata["tokenizer.ggml.model"]
    names = {*model.header.metadata["tokenizer.ggml.tokens"].raw()}
    missing = set[int]()
    if tokenizer == "llama":
        missing = {n for n in range(1, 256) if not names & {b"<0x%02X>" % n, bytes([n])}}
    elif tokenizer == "rwkv":
        pieces = {model.token_to_piece(token) for token in range(model.vocabulary_size)}
        missing = {piece[0] for piece in pieces if piece and piece[:1] not in pieces}
    if missing:
        raise FileError(
            f"{model.header.path}: the vocabulary has no token for the byte <0x{min(missing):02X}>"
        )


def _render_template(model: Model) -> None:
    """Encode the sample conversations; a template may refuse all but a question alone."""
    _say(model.header.path, "rendering its chat template")
    encoder = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
    question, *others = ([Message(role, "1 + 1?") for role in roles.split()] for roles in _CONVERSATIONS)
    encoder.encode_conversation(question)
    for conversation in others:
        with suppress(RequestError):
            encoder.encode_conversation(conversation)


def _compute(model: Model, adapter: LoraAdapter | None) -> None:
    """Compute, also with each other attention and type of the KV cache that the library has for the model."""
    header, library = model.header, model.library.name
    _say(adapter.path if adapter else header.path, "computing")
    if model.context_trained < _CONTEXT:
        raise FileError(f"{header.path}: a context of {model.context_trained} tokens is too short")
    own = library == LIBRARIES[0]
    usual = Settings(_CONTEXT, slots=2, batch=_BATCH, threads=1, flash_attention=own, library=library)
    if read_pooling(header):
        with EmbeddingContext(model, embedding_settings(header, usual), adapter) as texts:
            texts.embed([(0, 0, 0), (0,)])
        return
    with Context(model, usual, adapter) as context:
        _use(context)
    others = (replace(usual, kv=kv) for kv in KV_TYPES if kv != usual.kv)
    exact = replace(usual, flash_attention=False, exact=True, outputs=_BATCH)
    for way in (replace(usual, flash_attention=False), *others, exact) if own else ():
        with suppress(ThirteenError), Context(model, way, adapter) as context:
            context.decode([Span(0, 0, (0,), rows=1)])


def _use(context: Context) -> None:
    """Compute a prompt in two batches, two sequences at once, and both again: one is cut, one is restored."""
    model, token = context.model, (0,)
    context.decode([Span(0, 0, token * _BATCH, rows=1)])
    context.decode([Span(0, _BATCH, token, rows=1), Span(1, 0, token, rows=1)])
    state = context.save(1)
    context.clear(1)
    if not context.restore(1, state, 1):
        raise FileError(f"{model.header.path}: a saved sequence cannot be restored")
    if model.rewinds:
        context.clear(0, _BATCH)
    context.decode([Span(0, _BATCH + (not model.rewinds), token, rows=1), Span(1, 1, token, rows=1)])


if __name__ == "__main__":
    main()
