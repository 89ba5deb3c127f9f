"""What smaller vocabularies of a base keep: tokens by kind, bytes saved, coverage of texts not chosen on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..convert.vocabulary.ranking import check_size
from ..files.hashing import file_sha256
from ..files.progress import Stage, no_progress
from ..models.texts import held_out_texts
from ..runtime.calibration.corpus import Passage, read_passages
from ..runtime.calibration.token_statistics import (
    count_tokens,
    outside_probability,
    sample_passages,
    tokenize_passages,
)
from .vocabulary_choice import full_model, possible_sizes, rank_vocabulary, read_tables, read_texts

POSITIONS = 1_024  # at which each kind of held-out text is measured
_SAVED_AS = GGMLQuantizationType.Q4_K


@dataclass(frozen=True)
class TextCoverage:
    """How a vocabulary covers texts.

    Attributes:
        texts: which texts.
        unchanged: share of their tokens that stay.
        outside_mean: mean over the positions of the full model's probability of tokens that do not stay.
        outside_median: its median.
        answers_mean: mean over the positions of solutions; None if the texts have no solutions.
        answers_median: likewise.
    """

    texts: str
    unchanged: float
    outside_mean: float
    outside_median: float
    answers_mean: float | None
    answers_median: float | None


@dataclass(frozen=True)
class SizeCoverage:
    """A possible size.

    Attributes:
        tokens: number of tokens.
        saved_bytes: bytes of the rows that a file does not have, of embedding and output, as Q4_K.
        coverage: of each kind of held-out text.
    """

    tokens: int
    saved_bytes: int
    coverage: tuple[TextCoverage, ...]


@dataclass(frozen=True)
class VocabularyReport:
    """A chosen vocabulary, and what other sizes would keep.

    Attributes:
        base: the base.
        output: file of the list.
        sha256: hash of that file.
        tokens: number of tokens in the list.
        of: number of tokens in the full vocabulary.
        required: number of tokens that every list has.
        kinds: why the tokens of the list stay, with the number of each kind.
        sizes: the chosen size and others, ascending.
    """

    base: str
    output: str
    sha256: str
    tokens: int
    of: int
    required: int
    kinds: dict[str, int]
    sizes: tuple[SizeCoverage, ...]


def report_vocabulary(  # noqa: PLR0913 - options of a measurement, each with its default
    base: Path,
    size: int,
    output: Path,
    *,
    texts: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> VocabularyReport:
    """Choose a vocabulary, write its list, and measure what it and others cover.

    Args:
        base: a folder of safetensors, or a GGUF.
        size: number of tokens.
        output: file to write.
        texts: passages of one's own as JSON lines; one in ten is left out of the choice, to measure on.
        threads: number of threads that compute.
        stage: makes the progress callback of each stage.

    Raises:
        VocabularyError: the tokenizer is not byte-level BPE, or `size` is out of range.
        ThirteenError: another input is invalid.
    """
    checkpoint = open_checkpoint(base)
    check_size(read_tables(checkpoint), size)
    choice = read_texts(texts)
    with full_model(checkpoint, threads, stage) as model:
        ranking = rank_vocabulary(base, choice, model=model, threads=threads, stage=stage)
        sizes = sorted({size, *possible_sizes(ranking)})
        coverage: list[list[TextCoverage]] = [[] for _ in sizes]
        for name, passages in _held_out(choice.held_out).items():
            progress = stage(name)
            tokenized = tokenize_passages(model, passages)
            sample = sample_passages(tokenized, POSITIONS)
            outside = outside_probability(
                model, sample, ranking.order, sizes, threads=threads, progress=progress
            )
            counts = count_tokens(model, tokenized)[list(ranking.order)]  # by rank
            for at, of_size in enumerate(coverage):
                unchanged = float(counts[: sizes[at]].sum() / counts.sum())
                of_size.append(_coverage(name, unchanged, outside.values[at], outside.answers))
    ranking.choose(size).save(output)
    return VocabularyReport(
        base=str(base),
        output=str(output),
        sha256=file_sha256(output),
        tokens=size,
        of=len(ranking.order),
        required=ranking.required,
        kinds=ranking.count_kinds(size),
        sizes=tuple(
            SizeCoverage(one, saved_bytes(checkpoint, one), tuple(of_size))
            for one, of_size in zip(sizes, coverage, strict=True)
        ),
    )


def _held_out(own: tuple[Passage, ...]) -> dict[str, list[Passage]]:
    """Texts that were not chosen on, by kind: those of one's own, and the built-in ones."""
    built_in = read_passages(held_out_texts())
    kinds = {
        "your texts": [*own],
        "word problems": [passage for passage in built_in if passage.question is not None],
        "prose, code, other languages": [passage for passage in built_in if passage.question is None],
    }
    return {name: passages for name, passages in kinds.items() if passages}


def _coverage(
    texts: str, unchanged: float, outside: NDArray[np.float64], in_answer: NDArray[np.bool_]
) -> TextCoverage:
    answers = outside[in_answer]  # (positions in solutions,)
    return TextCoverage(
        texts=texts,
        unchanged=unchanged,
        outside_mean=float(outside.mean()),
        outside_median=float(np.median(outside)),
        answers_mean=float(answers.mean()) if len(answers) else None,
        answers_median=float(np.median(answers)) if len(answers) else None,
    )


def saved_bytes(checkpoint: Checkpoint, size: int) -> int:
    """Bytes of the rows that a vocabulary of `size` tokens saves in a file, as Q4_K."""
    architecture = checkpoint.architecture
    block, block_bytes = GGML_QUANT_SIZES[_SAVED_AS]
    matrices = 1 if architecture.tied else 2
    row_bytes: int = architecture.hidden * block_bytes // block
    return (architecture.vocab - size) * row_bytes * matrices
