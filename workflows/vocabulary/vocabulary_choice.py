"""The choice of a smaller vocabulary for a base, on texts and on the base's own probabilities."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.convert import convert
from ...convert.quantization import Uniform
from ...convert.recipe import Recipe
from ...convert.source.checkpoint import Checkpoint, GgufCheckpoint
from ...convert.vocabulary.ranking import Ranking, check_size, rank_tokens
from ...convert.vocabulary.tokenizer_tables import TokenizerTables
from ...convert.vocabulary.vocabulary_list import VocabularyList
from ...files.atomic_write import atomic_write
from ...files.cache_folder import cache_dir, cache_key
from ...files.hashing import file_sha256
from ...files.progress import QUIET, Run
from ...files.temporary_folder import temporary_folder
from ...models.passages import Passage, read_passages, tokenize_passages
from ...models.texts import vocabulary_passages
from ...runtime.llama.model import Model
from .token_statistics import count_tokens, mean_probability, sample_passages

DEFAULT_SIZE = 49_152
POSITIONS = 4_096  # at which the model's probabilities are measured
_HELD_OUT = 10  # one in ten of one's own passages is not chosen on
_METHOD = "2"  # incremented when the statistics change, so that older ones are not reused
_PRECISION = "Q8_0"


@dataclass(frozen=True)
class ChoiceTexts:
    """The texts that a vocabulary is chosen on.

    Attributes:
        own: passages of a file of one's own; what they use comes first, and the probabilities are theirs.
        held_out: those of the file that are left out, to measure on.
        built_in: the built-in passages.
    """

    own: tuple[Passage, ...]
    held_out: tuple[Passage, ...]
    built_in: tuple[Passage, ...]

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
    """Choose the `size` tokens of a base that stay.

    Args:
        base: the base.
        size: number of tokens.
        texts: passages of one's own as JSON lines, besides the built-in ones.
        run: how it runs.

    Raises:
        FileError: the tokenizer cannot be trimmed, or `size` is out of range.
        ThirteenError: another input is invalid.
    """
    check_size(read_tables(base), size)
    return rank_vocabulary(base, read_texts(texts), run).choose(size)


def read_tables(checkpoint: Checkpoint) -> TokenizerTables:
    """The tables of a base's tokenizer."""
    return TokenizerTables.from_fields(checkpoint.tokenizer, str(checkpoint.path))


def rank_vocabulary(
    base: Checkpoint, texts: ChoiceTexts, run: Run = QUIET, model: Model | None = None
) -> Ranking:
    """Rank the tokens of a base; the statistics behind it are cached.

    Args:
        base: the base.
        texts: what to choose on.
        run: how it runs.
        model: the base, if it is loaded.

    Raises:
        ThirteenError: as choose_vocabulary().
    """
    tables, path = read_tables(base), base.path
    config = file_sha256(path / "config.json") if path.is_dir() else ""  # a GGUF's own hash covers all of it
    key = cache_key(_METHOD, POSITIONS, base.sha256(), config, tables.sha256, texts.sha256)
    path = cache_dir() / f"vocabulary-{key}.npz"
    if not (statistics := _read_statistics(path)):
        with nullcontext(model) if model else full_model(base, run) as loaded:
            statistics = _measure(loaded, texts, run)
        with atomic_write(path) as file:
            np.savez(file, counts=statistics["counts"], probability=statistics["probability"])
    return rank_tokens(tables, **statistics)


def _read_statistics(path: Path) -> dict[str, NDArray[Any]]:
    """The statistics in the cache; none if it has none, or a damaged file."""
    with suppress(Exception), np.load(path) as statistics:  # NumPy raises errors of many classes
        return {name: statistics[name] for name in ("counts", "probability")}
    return {}


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
        yield stack.enter_context(Model(path, repack=False))


def _measure(model: Model, texts: ChoiceTexts, run: Run) -> dict[str, NDArray[Any]]:
    own, built_in = (list(tokenize_passages(model, one)) for one in (texts.own, texts.built_in))
    built_in_counts = count_tokens(model, built_in)
    # Tokens are ordered by their counts in one's own texts, then by those in the built-in ones.
    counts = count_tokens(model, own) * (built_in_counts.max() + 1) + built_in_counts
    sample = sample_passages(own or built_in, POSITIONS)
    probability = mean_probability(model, sample, run)
    return {"counts": counts, "probability": probability}
