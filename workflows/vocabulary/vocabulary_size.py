"""The number of tokens with which a file of a given size is predicted to lose the least."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...convert.file_plan import predict_vocabularies
from ...convert.quantize.importance import read_importance
from ...convert.quantize.size_planner import SizeTarget
from ...convert.source.checkpoint import open_checkpoint
from ...convert.vocabulary.vocabulary_list import SIZES, VocabularyList
from ...errors import FileError
from ...files.progress import Stage, no_progress
from ...models.texts import held_out_texts
from ...runtime.corpus.passages import read_passages, tokenize_passages
from ...runtime.corpus.token_statistics import outside_probability, sample_passages
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


def choose_vocabulary_size(  # noqa: PLR0913 - the inputs of a plan
    base: Path,
    target: SizeTarget,
    importance: Path,
    *,
    adapter: Path | None = None,
    texts: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> tuple[VocabularyList | None, tuple[SizeLoss, ...]]:
    """Choose how many tokens a file of a size keeps, and which.

    Args:
        base: a folder of safetensors, or a GGUF.
        target: the size, and what its plan aims for.
        importance: importance file with sensitivities.
        adapter: a PEFT folder.
        texts: passages of one's own as JSON lines, besides the built-in ones.
        threads: number of threads that compute.
        stage: makes the progress callback of each stage.

    Returns:
        The list, None if all tokens are best, and the losses that were compared, the full vocabulary last.

    Raises:
        FileError: the tokenizer is not byte-level BPE, or the importance file has no sensitivities.
        OutputError: no vocabulary can meet the size.
        ThirteenError: another input is invalid.
    """
    if not read_importance(importance).sensitivity:
        raise FileError(f"{importance}: --vocabulary auto needs an importance file with sensitivities")
    choice = read_texts(texts)
    checkpoint = open_checkpoint(base)
    with full_model(checkpoint, threads, stage) as model:
        ranking = rank_vocabulary(base, choice, model=model, threads=threads, stage=stage)
        sizes = [size for size in SIZES if ranking.required <= size < len(ranking.order)]
        # Passages of one's own that are not chosen on; without any, the built-in word problems.
        built_in = [one for one in read_passages(held_out_texts()) if one.question is not None]
        sample = sample_passages(list(tokenize_passages(model, choice.held_out or built_in)), POSITIONS)
        progress = stage("probability outside")
        outside = outside_probability(model, sample, ranking.order, sizes, threads=threads, progress=progress)
    lists = [*map(ranking.choose, sizes), None]
    predicted = predict_vocabularies(
        base, target, importance, lists, adapter=adapter, threads=threads, progress=stage("plans")
    )
    nats = [*(-np.log1p(-np.minimum(outside, 1 - 1e-9))).mean(axis=1), 0.0]
    # Only of the vocabularies for which a plan of the size exists.
    losses = tuple(
        SizeLoss(tokens, loss, float(outside_nats))
        for tokens, loss, outside_nats in zip((*sizes, len(ranking.order)), predicted, nats, strict=True)
        if loss is not None
    )
    best = min(losses, key=lambda loss: loss.total)
    return (None if best.tokens == len(ranking.order) else ranking.choose(best.tokens)), losses
