"""A command line of `thirteen`, or a function that fills a cache, with a fault at one of its points.

Imported before the package, whose modules then take the functions of fault_points.py.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from . import fault_points

fault_points.install()

import numpy as np  # noqa: E402
import thirteen.learn.cards  # noqa: E402
import thirteen.learn.sample_rollouts  # noqa: E402, F401 - loaded once for all children
from thirteen.cli.main import main as thirteen_main  # noqa: E402
from thirteen.errors import ThirteenError  # noqa: E402
from thirteen.runtime.batch import batch_file  # noqa: E402, F401
from thirteen.runtime.engine.prefix_cache import PrefixCache  # noqa: E402
from thirteen.runtime.llama import autotune  # noqa: E402
from thirteen.runtime.llama.settings_measurement import measure_settings  # noqa: E402
from thirteen.runtime.request import PrefixKey  # noqa: E402
from thirteen.workflows.adapter_resolver import resolve_runtime_lora  # noqa: E402
from thirteen.workflows.importance_cache import cached_importance  # noqa: E402

# Settings that are measured beside other programs are not saved: a later run would then save them.
vars(autotune)["measure_settings"] = lambda *args: replace(measure_settings(*args), quiet=True)


PREFIX_BYTES = 1 << 20
_PROMPTS = [tuple(range(start, start + 40)) for start in (100, 200, 300)]


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
    cached_importance(base, None, calibration=texts, threads=1)


def _adapter(adapter: Path, model: Path) -> None:
    resolve_runtime_lora(str(adapter), model)


def _prefixes(folder: Path) -> None:
    """Add prompts to a prefix cache, and check what it and the next one find."""

    def state(tokens: tuple[int, ...]) -> np.ndarray:
        digest = np.frombuffer(sha256(repr(tokens).encode()).digest(), np.uint8)
        return np.tile(digest, PREFIX_BYTES // 3 // 32)

    for _ in range(2):
        cache = PrefixCache(PREFIX_BYTES, {"base": folder / "base", "other": folder / "other"})
        for adapter in ("base", "other"):
            for prompt in _PROMPTS:
                if found := cache.find(PrefixKey(adapter), (*prompt, 1)):
                    assert np.array_equal(found.state, state(prompt)), "another state"
                cache.add(PrefixKey(adapter), prompt, state(prompt))
                cache.flush()


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "importance-cache": _importance,
    "adapter-cache": _adapter,
    "prefix-cache": _prefixes,
}
