"""The choice of a smaller vocabulary for a base, on texts and its own probabilities: which and how many."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..convert.convert import convert
from ..convert.fit_size import FitSize, predict_losses
from ..convert.recipe import Recipe, Uniform
from ..convert.source.checkpoint import Checkpoint, GgufCheckpoint
from ..convert.vocabulary.ranking import Ranking, check_size, rank_tokens
from ..convert.vocabulary.tokenizer_tables import TokenizerTables
from ..convert.vocabulary.vocabulary_list import SIZES, VocabularyList
from ..errors import FileError, RequestError
from ..files.cache_folder import cache_key, cached, temporary_folder
from ..files.output import atomic_write
from ..files.progress import QUIET, Progress, Run
from ..files.received_files import file_sha256
from ..files.worker_pool import worker_pool
from ..runtime.llama.context import Context, log_softmax
from ..runtime.llama.model import Model
from ..runtime.llama.settings import Settings
from ..runtime.machine import default_threads
from ..runtime.trial import try_files
from ..stats import Doubles
from .passages import HELD_OUT, Passage, read_passages, tokenize_passages, vocabulary_passages

DEFAULT_SIZE = 49_152
POSITIONS = 4_096  # at which the model's probabilities are measured
HELD_OUT_POSITIONS = 1_024  # of held-out texts, at which the probability outside is measured
_HELD_OUT = 10  # one in ten of one's own passages is not chosen on
_METHOD = "2"  # incremented when the statistics change, so that older ones are not reused
_PRECISION = "Q8_0"
PASSAGE_TOKENS = 512  # of a longer passage, the beginning
_ROWS = 128  # rows of logits at once


@dataclass(frozen=True)
class SizeLoss:
    """Predicted loss of a file with a number of tokens.

    Attributes:
        outside: mean of -log(1 - probability outside), in nats: the divergence of a model that cannot give
            these tokens, on texts that were not chosen on.
    """

    tokens: int  # number of tokens
    quantization: float  # predicted KL divergence by quantization, in nats
    outside: float

    @property
    def total(self) -> float:
        """Nats in all."""
        return self.quantization + self.outside


@dataclass(frozen=True)
class ChoiceTexts:
    """The texts that a vocabulary is chosen on.

    Attributes:
        own: passages of a file of one's own; what they use comes first, and the probabilities are theirs.
    """

    own: tuple[Passage, ...]
    held_out: tuple[Passage, ...]  # those of the file that are left out, to measure on
    built_in: tuple[Passage, ...]  # the built-in passages

    @property
    def sha256(self) -> str:
        """Hash of the texts that are chosen on."""
        return hashlib.sha256(repr((self.own, self.built_in)).encode("utf-8", "replace")).hexdigest()


def read_texts(texts: Path | None) -> ChoiceTexts:
    """Read the texts to choose on: the built-in ones, and those of a file of JSON lines, if given.

    Raises:
        RequestError: the file cannot be read or has no text, or a line is invalid.
    """
    passages = read_passages(texts) if texts else []
    held_out = passages[_HELD_OUT - 1 :: _HELD_OUT]
    own = [passage for place, passage in enumerate(passages, 1) if place % _HELD_OUT]
    return ChoiceTexts(tuple(own), tuple(held_out), vocabulary_passages())


def choose_vocabulary(
    base: Checkpoint, size: int, texts: Path | None = None, run: Run = QUIET
) -> VocabularyList:
    """Choose the `size` tokens of a base that stay, on built-in texts and those of a file of JSON lines.

    Raises:
        FileError: the tokenizer cannot be trimmed, or `size` is out of range.
        ThirteenError: another input is invalid.
    """
    check_size(_tables(base), size)
    return rank_vocabulary(base, read_texts(texts), run).choose(size)


def choose_vocabulary_size(
    recipe: Recipe, base: Checkpoint, texts: Path | None = None, run: Run = QUIET
) -> tuple[VocabularyList | None, tuple[SizeLoss, ...]]:
    """Choose how many tokens a file of a size keeps, and which.

    Args:
        recipe: what the file is made from, with all tokens: a size, and an importance with sensitivities.
        base: its base.
        texts: passages of one's own as JSON lines, besides the built-in ones.
        run: how it runs.

    Returns:
        The list, None if all tokens are best, and the losses that were compared, the full vocabulary last.

    Raises:
        FileError: the tokenizer cannot be trimmed, or the importance file has no sensitivities.
        OptionError: no vocabulary can meet the size.
        ThirteenError: another input is invalid.
    """
    quantization, merged, choice = recipe.quantization, recipe.open(), read_texts(texts)
    assert isinstance(quantization, FitSize), "its size is compared"
    if not (merged.importance and merged.importance.sensitivity):
        raise FileError(f"{recipe.importance}: has no sensitivities, which the choice of a size needs")
    with full_model(base, run) as model:
        ranking = rank_vocabulary(base, choice, run, model)
        sizes = [size for size in SIZES if ranking.required <= size < len(ranking.order)]
        # Passages of one's own that are not chosen on; without any, the built-in word problems.
        built_in = [one for one in read_passages(HELD_OUT) if one.question is not None]
        passages = list(tokenize_passages(model, choice.held_out or built_in))
        sample = sample_passages(passages, HELD_OUT_POSITIONS)
        outside = outside_probability(model, sample, ranking.order, sizes, run)
    lists = [*map(ranking.choose, sizes), None]
    with worker_pool(run.threads) as pool:
        predicted = predict_losses(quantization, merged, lists, pool, run.stage("plans"))
    nats = [*(-np.log1p(-np.minimum(outside, 1 - 1e-9))).mean(axis=1), 0.0]
    # Only of the vocabularies for which a plan of the size exists.
    losses = tuple(
        SizeLoss(tokens, loss, float(outside_nats))
        for tokens, loss, outside_nats in zip((*sizes, len(ranking.order)), predicted, nats, strict=True)
        if loss is not None
    )
    best = min(losses, key=lambda loss: loss.total)
    return (None if best.tokens == len(ranking.order) else ranking.choose(best.tokens)), losses


def rank_vocabulary(
    base: Checkpoint, texts: ChoiceTexts, run: Run = QUIET, model: Model | None = None
) -> Ranking:
    """Rank the tokens of a base, which may be loaded; the statistics behind it are cached."""

    def make(path: Path) -> None:
        with nullcontext(model) if model else full_model(base, run) as loaded:
            own, built_in = (list(tokenize_passages(loaded, one)) for one in (texts.own, texts.built_in))
            built_in_counts = count_tokens(loaded, built_in)
            # Tokens are ordered by their counts in one's own texts, then by those in the built-in ones.
            counts = count_tokens(loaded, own) * (built_in_counts.max() + 1) + built_in_counts
            sample = sample_passages(own or built_in, POSITIONS)
            probability = mean_probability(loaded, sample, run)
        with atomic_write(path) as file:
            np.savez(file, counts=counts, probability=probability)

    tables, path = _tables(base), base.path
    config = file_sha256(path / "config.json") if path.is_dir() else ""  # a GGUF's own hash covers all of it
    key = cache_key(_METHOD, POSITIONS, base.sha256(), config, tables.sha256, texts.sha256)
    statistics = cached(f"vocabulary-{key}.npz", make)
    try:
        return rank_tokens(tables, *_read_statistics(statistics))
    except (OSError, ValueError, LookupError, EOFError, NotImplementedError, BadZipFile):  # it is damaged
        make(statistics)
        return rank_tokens(tables, *_read_statistics(statistics))


def _read_statistics(path: Path) -> tuple[NDArray[np.int64], Doubles]:
    with np.load(path) as arrays:
        return arrays["counts"], arrays["probability"]


@contextmanager
def full_model(base: Checkpoint, run: Run = QUIET) -> Iterator[Model]:
    """Load a base with its full vocabulary; a folder of safetensors is converted first, to Q8_0.

    Repacked kernels would round differently per processor.
    """
    with ExitStack() as stack:
        path = base.path
        if not isinstance(base, GgufCheckpoint):
            path = stack.enter_context(temporary_folder("vocabulary")) / "model.gguf"
            convert(Recipe(base.path, path, Uniform(_PRECISION)), run, "8 bits")
        try_files(path)
        yield stack.enter_context(Model(path, repack=False))


def _tables(base: Checkpoint) -> TokenizerTables:
    return TokenizerTables.from_fields(base.tokenizer, str(base.path))


def count_tokens(model: Model, passages: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Count how often the passages use each token, (vocab,)."""
    tokens = [token for passage in passages for token in passage]
    return np.bincount(np.array(tokens, np.int64), minlength=model.vocabulary_size)


def sample_passages(passages: Sequence[tuple[int, ...]], positions: int) -> list[tuple[int, ...]]:
    """Take passages evenly spread over all, of about `positions` tokens in all, and at least one."""
    sizes = np.array([min(len(passage), PASSAGE_TOKENS) for passage in passages])
    step = max(sizes.sum() / positions, 1.0)
    return [passages[int(place)] for place in np.arange(0, len(passages), step)]


def mean_probability(model: Model, passages: Sequence[tuple[int, ...]], run: Run = QUIET) -> Doubles:
    """Compute the mean over all positions of the probability of each token, (vocab,).

    Raises:
        FileError: a probability is not a finite number.
        RequestError: the passages have no tokens.
    """
    total, positions = np.zeros(model.vocabulary_size), 0
    for probabilities in _predictions(model, passages, run.threads, run.stage("probabilities")):
        total += probabilities
        positions += 1
    if not np.isfinite(total).all():
        raise FileError(f"{model.header.path}: the model's probabilities are not finite numbers")
    return total / positions


def outside_probability(
    model: Model,
    passages: Sequence[tuple[int, ...]],
    order: Sequence[int],
    sizes: Sequence[int],
    run: Run = QUIET,
) -> Doubles:
    """Compute the probability of what vocabularies would not have, (sizes, positions).

    Raises:
        RequestError: the passages have no tokens.
    """
    by_rank, progress = np.array(order), run.stage("probability outside")
    ranked = (row[by_rank] for row in _predictions(model, passages, run.threads, progress))
    return np.array([[row[size:].sum() for size in sizes] for row in ranked]).T


def _predictions(
    model: Model, passages: Sequence[tuple[int, ...]], threads: int | None, progress: Progress
) -> Iterator[Doubles]:
    """Yield the probabilities of all tokens at each position, (vocab,)."""
    if not any(passages):
        raise RequestError("the texts have no tokens")
    longest = min(max(len(passage) for passage in passages), PASSAGE_TOKENS, model.context_trained)
    rows = min(longest, _ROWS)
    settings = Settings(longest, 1, rows, rows, threads=threads or default_threads())
    with Context(model, settings) as context:
        for done, passage in enumerate(passages, 1):
            for row in context.decode_text(passage[:longest]):
                yield np.exp(log_softmax(context.logits_row(row)))
            context.clear(0)
            progress(done, len(passages))
