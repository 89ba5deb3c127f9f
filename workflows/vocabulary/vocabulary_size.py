"""The number of tokens with which a file of a given size is predicted to lose the least."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...convert.fit_size import FitSize, predict_losses
from ...convert.recipe import Recipe
from ...convert.source.checkpoint import Checkpoint
from ...convert.vocabulary.vocabulary_list import SIZES, VocabularyList
from ...errors import FileError
from ...files.progress import QUIET, Run
from ...files.worker_pool import worker_pool
from ...models.passages import read_passages, tokenize_passages
from ...models.texts import HELD_OUT
from .token_statistics import outside_probability, sample_passages
from .vocabulary_choice import full_model, rank_vocabulary, read_texts

POSITIONS = 1_024  # of held-out texts, at which the probability outside is measured


@dataclass(frozen=True)
class SizeLoss:
    """Predicted loss of a file with a number of tokens.

    Attributes:
        tokens: number of tokens.
        quantization: predicted KL divergence by quantization, in nats.
        outside: mean of -log(1 - probability outside), in nats: the divergence of a model that cannot give
            these tokens, on texts that were not chosen on.
    """

    tokens: int
    quantization: float
    outside: float

    @property
    def total(self) -> float:
        """Nats in all."""
        return self.quantization + self.outside


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
        sample = sample_passages(list(tokenize_passages(model, choice.held_out or built_in)), POSITIONS)
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
