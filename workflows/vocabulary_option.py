"""The tokens of a base that a conversion keeps, as a user names them."""

from pathlib import Path

from ..convert.vocabulary.vocabulary_list import VocabularyList


def resolve_vocabulary(option: str, base: Path) -> VocabularyList:
    """Find the list that --vocabulary names.

    Args:
        option: the file of a list.
        base: the base that is converted.

    Raises:
        VocabularyError: there is no such file, or it is no list. Whether it fits the base is for convert().
    """
    return VocabularyList.load(Path(option))
