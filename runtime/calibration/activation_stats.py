"""What a model's weights are given to multiply, gathered over passages: llama.cpp's importance statistics.

The passages' tokens are run as llama-imatrix runs a text's: end to end, cut into chunks that know nothing of
each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ...errors import ModelFileError, RequestError
from ...files.progress import Progress, no_progress
from ..engine.chat_template import PromptEncoder, read_chat_template
from ..llama.context import Context, ContextParams, Span
from ..llama.eval_callback import MatMul, MatMulTap
from ..llama.model import Model
from ..threads import physical_cores
from .activation_covariance import CovarianceTap
from .corpus import Passage, passage_tokens

BATCH = 512  # tokens computed at once; the logits of all take a vocabulary's width each in memory



@dataclass(frozen=True)
class ActivationStats:
    """How large a model's activations are.

    Attributes:
        sums: by weight, the sum of each input's squares over the tokens, (columns,).
        counts: by weight, how many tokens there were.
        covariances: see Covariances; by the first of the weights that are given the same.
        sketches: likewise, (columns, rank).
        tokens: how many of each token there were, (vocabulary,).
        chunk: tokens in a chunk.
        chunks: how many chunks there were.
    """

    sums: dict[str, NDArray[np.float32]]
    counts: dict[str, int]
    covariances: dict[str, NDArray[np.float32]]
    sketches: dict[str, NDArray[np.float32]]
    tokens: NDArray[np.int64]
    chunk: int
    chunks: int


def collect_activation_stats(
    model_path: Path,
    passages: Sequence[Passage],
    *,
    chunk: int = 512,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> ActivationStats:
    """Run a model over passages and gather its statistics.

    Args:
        model_path: a GGUF file.
        passages: what to read.
        chunk: tokens that are read together; what is left over at the end is read only if it is all there is.
        threads: by default one for each physical core.
        progress: called with the chunks done and in all.

    Raises:
        ModelFileError: the file is not one that this build can run, or computes what is not a number.
        RequestError: there are no tokens, a chunk is longer than the model was trained for, or the chat
            template does not take a question.
    """
    with Model(model_path, repack=False) as model:  # statistics shall be the same on all processors
        chunks, vocabulary = chunk_passages(model, passages, chunk), model.vocabulary_size
        squares, covariances = SquaresTap(), CovarianceTap()

        def both(product: MatMul) -> None:
            squares(product)
            covariances(product)

        with threadpool_limits(1):  # the library's own threads still spin while the taps compute
            run_chunks(model, chunks, both, threads=threads, progress=progress)
    sums = {name: values.astype(np.float32) for name, values in squares.sums.items()}
    if not sums:
        raise ModelFileError(f"{model_path}: this build of llama.cpp shows none of its matrix products")
    if not all(np.isfinite(values).all() for values in sums.values()):
        raise ModelFileError(f"{model_path}: the model's activations are not finite numbers")
    return ActivationStats(
        sums=sums,
        counts=squares.counts,
        covariances=covariances.blocks(),
        sketches=covariances.sketches(),
        tokens=np.bincount(np.concatenate(chunks), minlength=vocabulary),
        chunk=chunk,
        chunks=len(chunks),
    )


def chunk_passages(model: Model, passages: Sequence[Passage], chunk: int) -> list[tuple[int, ...]]:
    """The passages' tokens in chunks of `chunk`, each begun as the model's tokenizer begins a text.

    Raises:
        RequestError: see collect_activation_stats().
    """
    if not 1 <= chunk <= model.context_trained:
        raise RequestError(
            f"chunk must be from 1 to the {model.context_trained} tokens that the model was trained for, "
            f"not {chunk}"
        )
    prompter = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
    tokens = [token for passage in passages for token in passage_tokens(model, prompter, passage)]
    if not tokens:
        raise RequestError("the passages have no tokens")
    whole = len(tokens) // chunk * chunk or len(tokens)
    begin = [model.bos] if model.adds_bos and model.bos is not None else []
    return [(*begin, *tokens[start + len(begin) : start + chunk]) for start in range(0, whole, chunk)]


def run_chunks(
    model: Model,
    chunks: Sequence[tuple[int, ...]],
    tap: MatMulTap,
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Compute every chunk from an empty context, logits and all, and show the tap each product."""
    longest = max(map(len, chunks))
    batch = min(longest, BATCH)
    room = ContextParams(longest, 1, batch, physical_cores() if threads is None else threads, outputs=batch)
    with Context(model, room, tap=tap) as context:
        for done, tokens in enumerate(chunks, 1):
            for start in range(0, len(tokens), batch):
                part = tokens[start : start + batch]
                context.decode([Span(0, start, part, rows=len(part))])
            context.clear(0)
            progress(done, len(chunks))


class SquaresTap:
    """A tap that sums up the squares of what each weight is given.

    Attributes:
        sums: by weight, (columns,).
        counts: by weight, the tokens so far.
    """

    def __init__(self) -> None:
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, int] = {}

    def __call__(self, product: MatMul) -> None:
        """Add a product's."""
        name, inputs = product.weight, product.inputs  # (tokens, columns)
        squares = np.einsum("tc,tc->c", inputs, inputs)  # (columns,)
        self.sums[name] = self.sums.get(name, 0) + squares.astype(np.float64)
        self.counts[name] = self.counts.get(name, 0) + len(inputs)
