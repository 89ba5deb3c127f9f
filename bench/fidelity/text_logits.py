"""Models reading the held-out texts: the same pieces for each, and what it predicts at every position."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelFileError, RequestError
from ...files.gguf_header import Header
from ...runtime.calibration.corpus import passage_tokens, read_passages
from ...runtime.engine.chat_template import read_chat_template
from ...runtime.engine.engine import Engine
from ...runtime.engine.prompt_encoder import PromptEncoder
from ...runtime.llama.logits import Logits
from ...stats.bootstrap import PASSAGES_MIN
from .windows import Window, cut_windows

WINDOW_TOKENS = 256  # tokens of a text at once: each takes a vocabulary's width of memory for every model
_BATCH = 64


def open_reader(model: Path, threads: int | None, adapter: Path | None = None) -> Engine:
    """A model that is to read pieces of at most PIECE tokens, or of its context where that is shorter.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter is not one for this model.
        RequestError: the number of threads is out of bounds.
    """
    return Engine(model, adapter=adapter, context=WINDOW_TOKENS, slots=1, threads=threads, batch=_BATCH)


def check_vocabulary(reference: Header, other: Header) -> None:
    """Raise ModelFileError if a model's vocabulary is not the reference's."""
    key = "tokenizer.ggml.tokens"
    ours, theirs = reference.metadata[key], other.metadata[key]
    if len(ours) != len(theirs):
        raise ModelFileError(
            f"{other.path}: its vocabulary has {len(theirs)} tokens, that of {reference.path} {len(ours)}"
        )
    differing = next((token for token, name in enumerate(ours) if theirs[token] != name), None)
    if differing is not None:
        raise ModelFileError(
            f"{other.path}: token {differing} of its vocabulary is {theirs[differing]!r}, "
            f"in {reference.path} it is {ours[differing]!r}"
        )


def read_windows(reference: Engine, data: Path, size: int, positions: int) -> list[Window]:
    """The texts as this model's tokens, cut to pieces.

    Args:
        reference: whose tokenizer and chat template it is.
        data: texts as JSON lines, see runtime.passages.
        size: the most tokens of a piece.
        positions: the most that count in all.

    Raises:
        RequestError: `data` cannot be read or holds no text, or none that is long enough.
    """
    model = reference.model
    prompter = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
    pieces = cut_windows(
        (passage_tokens(model, prompter, passage) for passage in read_passages(data)),
        begin=model.tokenize("", special=False, bos=True),
        size=size,
        positions=positions,
    )
    if not pieces:
        raise RequestError(f"{data}: no passage has the two tokens that a prediction takes")
    return pieces


def passages_of(pieces: Sequence[Window]) -> NDArray[np.int64]:
    """The passage that each position that counts is from, (positions,)."""
    return np.repeat([piece.passage for piece in pieces], [len(piece.counted) for piece in pieces])


def window_logits(model: Engine, piece: Window) -> Logits:
    """What a model predicts after each token of a piece, (n, vocab).

    Raises:
        ModelFileError: what it computes is not finite.
    """
    logits = model.logits(piece.tokens)
    if not np.isfinite(logits).all():
        raise ModelFileError(f"{model.model.header.path}: the model's logits are not finite numbers")
    return logits


def few_texts_warning(texts: int) -> Iterator[str]:
    """A warning, where there are too few texts for an interval."""
    if texts < PASSAGES_MIN:
        yield f"warning: with {texts} texts the intervals are too narrow; take {PASSAGES_MIN} or more"
