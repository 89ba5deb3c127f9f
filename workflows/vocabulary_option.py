"""The tokens of a base that a conversion keeps, as a user names them."""

from pathlib import Path

from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import VocabularyError
from ..files.progress import Stage, no_progress
from .vocabulary_choice import choose_vocabulary


def resolve_vocabulary(
    option: str,
    base: Path,
    *,
    texts: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> VocabularyList:
    """Find or choose the list that --vocabulary names.

    Args:
        option: the file of a list, or a number of tokens, for which a list is chosen.
        base: the base that is converted.
        texts: passages of one's own to choose on, besides the built-in ones.
        threads: number of threads that compute.
        stage: makes the progress callback of each stage.

    Raises:
        VocabularyError: there is no such file, it is no list, the number is out of range, or texts are given
            for a list. Whether a list fits the base is for convert().
        ThirteenError: the texts are invalid.
    """
    if option.isascii() and option.isdigit():
        return choose_vocabulary(base, int(option), texts=texts, threads=threads, stage=stage)
    if texts is not None:
        raise VocabularyError(f"{texts}: texts are for a number of tokens; {option} is a list")
    return VocabularyList.load(Path(option))
