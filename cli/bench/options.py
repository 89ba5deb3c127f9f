"""What the bench commands share: models given as files or shapes, lists of numbers, default models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ...errors import RequestError
from ..console import progress_bar


@contextmanager
def shape_or_files(
    command: str, *given: tuple[str, Path | None], shape: str | None, types: Sequence[str]
) -> Iterator[tuple[Path, ...]]:
    """The files that were given, or for a while those of a shape, of so many types.

    Raises:
        RequestError: not all files are given, or both they and a shape.
        ThirteenError: what write_shape_model() raises.
    """
    from ...bench.synthetic.shapes import temporary_shape_models

    paths = [path for _, path in given if path]
    if len(paths) != (0 if shape else len(given)):
        names = " and ".join(name for name, _ in given)
        raise RequestError(f"bench {command}: give either {names} or --shape")
    with temporary_shape_models(shape, types) if shape else nullcontext(tuple(paths)) as files:
        yield files


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """The integers in the value of an option, as 128,512,1024."""
    try:
        return tuple(map(int, text.split(","))) if text else ()
    except ValueError:
        raise RequestError(f"{option} {text!r}: write it like 128,512,1024") from None


def default_base() -> Path:
    """The embedded default model without its adapter."""
    from ...workflows.default_model import default_model

    with progress_bar("preparing the default model") as progress:
        return default_model(adapted=False, progress=progress)


def default_models() -> tuple[Path, Path]:
    """The embedded default model without and with its adapter."""
    from ...workflows.default_model import default_model

    with progress_bar("preparing the default models") as progress:
        return default_model(adapted=False, progress=progress), default_model(progress=progress)
