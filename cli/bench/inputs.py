"""Values of options that several bench commands share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ...errors import RequestError
from .. import options

if TYPE_CHECKING:
    from ...bench.harness.workload import Workload
    from ...bench.size.kl_curve import CurveQuestions


@contextmanager
def shape_or_files(
    ctx: typer.Context, command: str, *given: tuple[str, Path | None], shape: str | None, types: Sequence[str]
) -> Iterator[tuple[Path, ...]]:
    """Yield the given files, or temporary files with random weights for --shape.

    Args:
        ctx: of the command.
        command: name of the bench command, for errors.
        given: name and value of each file argument.
        shape: catalogue name.
        types: types of each random file.

    Raises:
        BadParameter: types are given, but no shape.
        RequestError: a file is missing, or both files and a shape are given.
        ThirteenError: a file with random weights cannot be written.
    """
    from ...bench.synthetic.shapes import temporary_shape_models

    if not shape:
        options.refuse_given(ctx, ("types", "base_types"), "requires --shape")
    paths = [path for _, path in given if path]
    if len(paths) != (0 if shape else len(given)):
        names = " and ".join(name for name, _ in given)
        raise RequestError(f"bench {command}: give either {names} or --shape")
    with temporary_shape_models(shape, types) if shape else nullcontext(tuple(paths)) as files:
        yield files


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Parse integers separated by commas."""
    try:
        return tuple(map(int, text.split(","))) if text else ()
    except ValueError:
        raise RequestError(f"{option} {text!r}: must be integers such as 128,512,1024") from None


def workload(prompt_tokens: int, decode_tokens: int, threads: int | None) -> "Workload":
    """The workload of one measured run; the default is a thread per physical core."""
    from ...bench.harness.workload import Workload
    from ...runtime.threads import physical_cores

    return Workload(prompt_tokens, decode_tokens, threads or physical_cores())


def curve_questions(data: str, limit: int, max_tokens: int, threads: int | None) -> "CurveQuestions":
    """The questions that all files of a curve answer, without samples or votes."""
    from ...bench.accuracy.datasets import load_question_set
    from ...bench.accuracy.prompt_settings import PromptSettings
    from ...bench.size.kl_curve import CurveQuestions
    from ...runtime.threads import default_threads

    settings = PromptSettings(
        threads=default_threads() if threads is None else threads, max_tokens=max_tokens
    )
    return CurveQuestions(load_question_set(data).subsample(limit), settings)
