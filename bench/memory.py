"""How long a model takes to load and how much memory it fills, each in a process of its own.

`python -m thirteen.bench.memory FILE.gguf` prints the figures as JSON. In one process a second model would
hide in what the first had left behind.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from .. import errors
from ..errors import ModelFileError, ThirteenError
from ..runtime.cores import physical_cores
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
    # -P: a folder of the caller's must not stand in for a package of ours.
    command = [sys.executable, "-P", "-m", __name__]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in asdict(settings).items()]
    command += [] if adapter is None else [f"--adapter={adapter}"]
    command += ["--", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - it is this file
    try:
        said = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise ModelFileError(
            f"{model}: measuring its memory ended with status {done.returncode}: {_last_line(done.stderr)}"
        ) from None
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])
    return Memory(**said)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


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
    try:
        settings = Settings(given.prompt_tokens, given.decode_tokens, given.threads, given.batch)
        print(json.dumps(asdict(_measure_here(given.model, given.adapter, settings))))
    except ThirteenError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
