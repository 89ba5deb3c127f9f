"""How long a model takes to load and how much memory it fills, each in a process of its own.

`python -m thirteen.bench.memory FILE.gguf` prints the figures as JSON. In one process a second model would
hide in what the first had left behind.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from ..errors import ModelFileError
from ..runtime.cores import physical_cores
from . import apart
from .settings import Settings, load
from .turn import take_turn


@dataclass(frozen=True, slots=True)
class Memory:
    """What one model took.

    Attributes:
        load_s: wall time from nothing to an engine that takes requests. Libraries are imported before, and
            the file is in the system's cache if it was read lately.
        start_rss_bytes: the most that was resident before the load: Python, NumPy, llama.cpp. None where the
            system does not tell.
        peak_rss_bytes: the most that was resident up to the end of a turn: the above, the pages of the file
            that were touched, weights laid out anew, keys and values, buffers. None likewise.
    """

    load_s: float
    start_rss_bytes: int | None
    peak_rss_bytes: int | None


def measure(model: Path, adapter: Path | None, settings: Settings) -> Memory:
    """Load a model, with an adapter or without, in a fresh process, and have it take a turn.

    Raises:
        ThirteenError: what loading the same files here would raise.
        ModelFileError: the process died, for example for want of memory.
    """
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(settings).items()]
    arguments += [] if adapter is None else [f"--adapter={adapter}"]
    arguments += ["--", str(model)]
    return Memory(
        **apart.call(
            __name__,
            arguments,
            lambda status, said: ModelFileError(
                f"{model}: measuring its memory ended with status {status}: {said}"
            ),
        )
    )


def _measure_here(model: Path, adapter: Path | None, settings: Settings) -> Memory:
    start_rss_bytes = _peak_rss_bytes()
    began = perf_counter()
    with load(model, adapter, settings) as engine:
        load_s = perf_counter() - began
        take_turn(engine, 0, settings)
        return Memory(load_s, start_rss_bytes, _peak_rss_bytes())


def _peak_rss_bytes() -> int | None:
    """The most that was resident in this process so far.

    Linux says so since the program began (VmHWM). What getrusage says there can be the parent's peak, so it
    is asked on other systems only.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # bytes there, KiB elsewhere


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE.gguf")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--batch", type=int, default=512)
    return parser.parse_args()


def main() -> int:
    """Measure the model that the command line names; an error is JSON as well, with exit status 2."""
    given = _arguments()

    def measured() -> dict[str, Any]:
        settings = Settings(given.prompt_tokens, given.decode_tokens, given.threads, given.batch)
        return asdict(_measure_here(given.model, given.adapter, settings))

    return apart.answer(measured)


if __name__ == "__main__":
    sys.exit(main())
