"""Activation statistics over calibration text, as llama-imatrix collects them.

The tokens of all passages are concatenated and cut into chunks, and each chunk runs in an empty context.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ...errors import ModelFileError, RequestError
from ...files.progress import Progress, no_progress
from ..llama.context import Context, ContextParams, Span
from ..llama.eval_callback import MatMul, MatMulTap
from ..llama.model import Model
from ..prompt.prompt_encoder import PromptEncoder
from ..prompt.template_process import read_chat_template
from ..threads import physical_cores
from .activation_covariance import CovarianceTap
from .corpus import Passage, passage_tokens

BATCH_TOKENS = 512  # tokens of one decode(), which returns a row of logits for each of them


@dataclass(frozen=True)
class ActivationStats:
    """Statistics of a model's activations.

    Attributes:
        sums: weight name -> sum of each input's square over the tokens, (columns,).
        counts: weight name -> tokens.
        covariances: weight name -> diagonal blocks of the input covariance, see CovarianceTap. Weights that
            share their inputs have one entry, under the first one's name.
        sketches: weight name -> low-rank factor of the input covariance, (columns, rank), likewise.
        token_counts: occurrences of each token, (vocab,).
        chunk_size: tokens of a chunk.
        chunk_count: number of chunks.
    """

    sums: dict[str, NDArray[np.float32]]
    counts: dict[str, int]
    covariances: dict[str, NDArray[np.float32]]
    sketches: dict[str, NDArray[np.float32]]
    token_counts: NDArray[np.int64]
    chunk_size: int
    chunk_count: int


def collect_activation_stats(
    model_path: Path,
    passages: Sequence[Passage],
    *,
    chunk_size: int = 512,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> ActivationStats:
    """Run a model over passages and collect its activation statistics.

    Args:
        model_path: a GGUF file.
        passages: calibration text.
        chunk_size: tokens of a chunk.
        threads: compute threads; by default one per physical core.
        progress: called after each chunk.

    Raises:
        ModelFileError: the file cannot be run by this build, or its activations are not finite.
        RequestError: there are no tokens, the chunk size exceeds the context that the model was trained for,
            or the chat template rejects a question.
    """
    squares, covariances = SquaresTap(), CovarianceTap()

    def tap(matmul: MatMul) -> None:
        squares(matmul)
        covariances(matmul)

    with Model(model_path, repack=False) as model:  # repacked kernels would round differently per processor
        chunks = chunk_passages(model, passages, chunk_size)
        token_counts = np.bincount(np.concatenate(chunks), minlength=model.vocabulary_size)
        with threadpool_limits(1):  # the library's own threads still spin while the taps compute
            run_chunks(model, chunks, tap, threads=threads, progress=progress)
    sums = {name: values.astype(np.float32) for name, values in squares.sums.items()}
    if not sums:
        raise ModelFileError(f"{model_path}: this build of llama.cpp reports no matrix products")
    if not all(np.isfinite(values).all() for values in sums.values()):
        raise ModelFileError(f"{model_path}: the model's activations are not finite numbers")
    return ActivationStats(
        sums=sums,
        counts=squares.counts,
        covariances=covariances.blocks(),
        sketches=covariances.sketches(),
        token_counts=token_counts,
        chunk_size=chunk_size,
        chunk_count=len(chunks),
    )


def chunk_passages(model: Model, passages: Sequence[Passage], chunk_size: int) -> list[tuple[int, ...]]:
    """Cut the tokens of all passages into chunks.

    As in llama-imatrix, the begin-of-text token replaces the first token of each chunk, if the tokenizer adds
    one, and an incomplete last chunk is dropped, unless it is the only one.

    Raises:
        RequestError: there are no tokens, the chunk size is out of range, or the chat template rejects a
            question.
    """
    if not 1 <= chunk_size <= model.context_trained:
        raise RequestError(
            f"chunk size must be from 1 to the {model.context_trained} tokens that the model was trained "
            f"for, not {chunk_size}"
        )
    encoder = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
    tokens = [token for passage in passages for token in passage_tokens(model, encoder, passage)]
    if not tokens:
        raise RequestError("the passages have no tokens")
    end = len(tokens) // chunk_size * chunk_size or len(tokens)
    bos = [model.bos] if model.adds_bos and model.bos is not None else []
    return [(*bos, *tokens[start + len(bos) : start + chunk_size]) for start in range(0, end, chunk_size)]


def run_chunks(
    model: Model,
    chunks: Sequence[tuple[int, ...]],
    tap: MatMulTap,
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Compute each chunk in an empty context, with logits of all tokens, and pass each product to `tap`."""
    longest = max(map(len, chunks))
    batch = min(longest, BATCH_TOKENS)
    params = ContextParams(longest, 1, batch, physical_cores() if threads is None else threads, outputs=batch)
    with Context(model, params, tap=tap) as context:
        for done, tokens in enumerate(chunks, 1):
            for start in range(0, len(tokens), batch):
                part = tokens[start : start + batch]
                context.decode([Span(0, start, part, rows=len(part))])
            context.clear(0)
            progress(done, len(chunks))


class SquaresTap:
    """MatMulTap that sums the squares of each weight's inputs.

    Attributes:
        sums: weight name -> sums over the tokens, (columns,).
        counts: weight name -> tokens so far.
    """

    def __init__(self) -> None:
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, int] = {}

    def __call__(self, matmul: MatMul) -> None:
        """Add the inputs of a product."""
        name, inputs = matmul.weight, matmul.inputs  # (tokens, columns)
        squares = np.einsum("tc,tc->c", inputs, inputs)  # (columns,)
        self.sums[name] = self.sums.get(name, 0) + squares.astype(np.float64)
        self.counts[name] = self.counts.get(name, 0) + len(inputs)
