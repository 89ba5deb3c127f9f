"""A command line of `thirteen`, or a function that fills a cache, with a fault at one of its points.

Imported before the package, whose modules then take the functions of fault_points.py.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import fault_points

fault_points.install()

import thirteen.learn.cards  # noqa: E402, F401 - loaded once for all children
from thirteen.cli.main import main as thirteen_main  # noqa: E402
from thirteen.convert.source.checkpoint import open_checkpoint  # noqa: E402
from thirteen.errors import ThirteenError  # noqa: E402
from thirteen.files.progress import Run  # noqa: E402
from thirteen.models.adapter import find_adapter  # noqa: E402
from thirteen.runtime.batch import batch_file  # noqa: E402, F401
from thirteen.workflows.importance_cache import Calibration, cached_importance  # noqa: E402


def main() -> None:
    """Run `ROOT KIND AT POINTS COMMAND …` in the folder ROOT; the points are written to the file POINTS."""
    root, kind, at, points, command, *arguments = sys.argv[1:]
    os.chdir(root)
    os.environ["THIRTEEN_CACHE"] = f"{root}/cache"
    tempfile.tempdir = f"{root}/tmp"
    fault_points.arm(root, kind, int(at))
    try:
        if command in _FUNCTIONS:
            _run(_FUNCTIONS[command], [Path(argument) for argument in arguments])
        else:
            sys.argv = ["thirteen", command, *arguments]
            thirteen_main()
    finally:
        Path(points).write_text(json.dumps(fault_points.points()))


def _run(function: Callable[..., object], arguments: list[Path]) -> None:
    try:
        function(*arguments)
    except ThirteenError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)


def _importance(base: Path, texts: Path) -> None:
    cached_importance(open_checkpoint(base), None, Calibration(texts), Run(1))


def _adapter(adapter: Path, model: Path) -> None:
    find_adapter(str(adapter)).lora(model)


_FUNCTIONS: dict[str, Callable[..., object]] = {"importance-cache": _importance, "adapter-cache": _adapter}
