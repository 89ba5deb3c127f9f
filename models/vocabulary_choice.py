"""The choice of a smaller vocabulary for a base, on texts and its own probabilities."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..convert.convert import convert
from ..convert.recipe import Recipe, Uniform
from ..convert.source.checkpoint import Checkpoint, GgufCheckpoint
from ..convert.vocabulary.ranking import Ranking, check_size, rank_tokens
from ..convert.vocabulary.tokenizer_tables import TokenizerTables
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import FileError, RequestError
from ..files.cache_folder import cache_key, cached, temporary_folder
from ..files.output import atomic_write
from ..files.progress import QUIET, Run
from ..files.received_files import file_sha256
from ..runtime.llama.context import Context, log_softmax
from ..runtime.llama.model import Model
from ..runtime.llama.settings import Settings
from ..runtime.machine import default_threads
from ..runtime.trial import try_files
from ..stats import Doubles
from .passages import Passage, read_passages, tokenize_passages, vocabulary_passages

DEFAULT_SIZE = 49_152
POSITIONS = 4_096  # at which the model's probabilities are measured
_LEFT_OUT = 10  # one in ten of one's own passages is not chosen on, so that the choice stays what it was
_METHOD = "2"  # incremented when the statistics change, so that older ones are not reused
_PRECISION = "Q8_0"
PASSAGE_TOKENS = 512  # of a longer passage, the beginning
_ROWS = 128  # rows of logits at once


@dataclass(frozen=True)
class ChoiceTexts:
    """The texts that a vocabulary is chosen on.

    Attributes:
        own: passages of a file of one's own; what they use comes first, and the probabilities are theirs.
    """

    own: tuple[Passage, ...]
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
    own = [passage for place, passage in enumerate(passages, 1) if place % _LEFT_OUT]
    return ChoiceTexts(tuple(own), vocabulary_passages())


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


def rank_vocabulary(base: Checkpoint, texts: ChoiceTexts, run: Run = QUIET) -> Ranking:
    """Rank the tokens of a base; the statistics behind it are cached."""

    def make(path: Path) -> None:
        with full_model(base, run) as model:
            own, built_in = (list(tokenize_passages(model, one)) for one in (texts.own, texts.built_in))
            built_in_counts = count_tokens(model, built_in)
            # Tokens are ordered by their counts in one's own texts, then by those in the built-in ones.
            counts = count_tokens(model, own) * (built_in_counts.max() + 1) + built_in_counts
            sample = sample_passages(own or built_in, POSITIONS)
            probability = mean_probability(model, sample, run)
        with atomic_write(path) as file:
            np.savez(file, counts=counts, probability=probability)

    tables, path = _tables(base), base.path
    config = file_sha256(path / "config.json") if path.is_dir() else ""  # a GGUF's own hash covers all of it
    key = cache_key(_METHOD, POSITIONS, base.sha256(), config, tables.sha256, texts.sha256)
    with np.load(cached(f"vocabulary-{key}.npz", make)) as statistics:
        return rank_tokens(tables, statistics["counts"], statistics["probability"])


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
    if not any(passages):
        raise RequestError("the texts have no tokens")
    total, positions = np.zeros(model.vocabulary_size), 0
    longest = min(max(len(passage) for passage in passages), PASSAGE_TOKENS, model.context_trained)
    rows = min(longest, _ROWS)
    settings = Settings(longest, 1, rows, rows, threads=run.threads or default_threads())
    progress = run.stage("probabilities")
    with Context(model, settings) as context:
        for done, passage in enumerate(passages, 1):
            for row in context.decode_text(passage[:longest]):
                total += np.exp(log_softmax(context.logits_row(row)))
                positions += 1
            context.clear(0)
            progress(done, len(passages))
    if not np.isfinite(total).all():
        raise FileError(f"{model.header.path}: the model's probabilities are not finite numbers")
    return total / positions
