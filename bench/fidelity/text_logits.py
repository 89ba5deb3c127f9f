"""Logits of models over the same windows of held-out texts."""

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

WINDOW_TOKENS = 256  # limits memory: each model's logits take the width of the vocabulary per token
_BATCH = 64


def load_for_logits(model: Path, threads: int | None, adapter: Path | None = None) -> Engine:
    """Load a model for windows of at most WINDOW_TOKENS tokens, or of its context if that is shorter.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter does not fit the model.
        RequestError: the number of threads is out of range.
    """
    return Engine(model, adapter=adapter, context=WINDOW_TOKENS, slots=1, threads=threads, batch=_BATCH)


def check_vocabulary(reference: Header, other: Header) -> None:
    """Raise ModelFileError if a model's vocabulary differs from the reference's."""
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
    """Read texts, and tokenize and cut them.

    Args:
        reference: model whose tokenizer and chat template apply.
        data: texts as JSON lines; see read_passages().
        size: maximum tokens per window.
        positions: maximum number of scored positions in all.

    Raises:
        RequestError: `data` cannot be read, or holds no text of at least two tokens.
    """
    model = reference.model
    encoder = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
    windows = cut_windows(
        (passage_tokens(model, encoder, passage) for passage in read_passages(data)),
        prefix=model.tokenize("", special=False, bos=True),
        size=size,
        positions=positions,
    )
    if not windows:
        raise RequestError(f"{data}: no passage has the two tokens that a prediction takes")
    return windows


def scored_passages(windows: Sequence[Window]) -> NDArray[np.int64]:
    """The passage of each scored position, (positions,)."""
    return np.repeat([window.passage for window in windows], [len(window.scored) for window in windows])


def window_logits(model: Engine, window: Window) -> Logits:
    """Compute the logits after each token of a window, (n, vocab).

    Raises:
        ModelFileError: they are not finite.
    """
    logits = model.logits(window.tokens)
    if not np.isfinite(logits).all():
        raise ModelFileError(f"{model.model.header.path}: the model's logits are not finite numbers")
    return logits


def few_texts_warning(texts: int) -> Iterator[str]:
    """Warn if there are too few texts for bootstrap intervals."""
    if texts < PASSAGES_MIN:
        yield f"warning: with {texts} texts the intervals are too narrow; take {PASSAGES_MIN} or more"
