"""Runs the fuzz targets in turn: `make fuzz SECONDS=600`, or `python tests/fuzz/campaign.py SECONDS [NAME…]`.

Inputs that reach new lines are kept in the cache folder for the next campaign. An input that fails is written
to build/fuzz/, and the exit status is 1.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from thirteen.files.cache_folder import cache_dir
from thirteen.tests.fuzz.target import HERE, load_target, target_names

FINDINGS = HERE.parents[1] / "build/fuzz"
_HANG_S = 20  # after which libFuzzer ends an input that does not return
_MEMORY = Path("/dev/shm")  # inputs are files for some targets; no disk needs to see them
_SHOWN_LINES = 40


@dataclass(frozen=True)
class Outcome:
    """What the fuzzer of a target printed, and its exit status."""

    status: int
    output: str

    @property
    def inputs(self) -> int:
        """Inputs that are kept, as each reaches other lines."""
        return self._last(r"corp: (\d+)/")

    @property
    def executions(self) -> int:
        """Inputs that were tried."""
        return self._last(r"^stat::number_of_executed_units: *(\d+)")

    @property
    def saved(self) -> str | None:
        """The file with the input that failed."""
        found = re.search(r"Test unit written to (.+)$", self.output, re.MULTILINE)
        return found and found[1]

    def _last(self, pattern: str) -> int:
        found = re.findall(pattern, self.output, re.MULTILINE)
        return int(found[-1]) if found else 0


def fuzz(name: str, seconds: int) -> Outcome:
    """Fuzz a target until an input fails, or for some seconds."""
    grown = cache_dir() / "fuzz" / name
    for folder in (grown, FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    target = load_target(name)
    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        dictionary = Path(scratch, "words")
        dictionary.write_text("".join(map(_dictionary_line, target.words)))
        options = {
            "max_total_time": seconds,
            "max_len": target.max_bytes,
            "timeout": _HANG_S,
            "rss_limit_mb": 4096,
            "print_final_stats": 1,
            "artifact_prefix": f"{FINDINGS / name}-",
        } | ({"dict": dictionary} if target.words else {})
        command = [sys.executable, str(HERE / "fuzz_target.py"), name]
        command += [f"-{option}={value}" for option, value in options.items()]
        command += [str(grown), str(HERE / "corpus" / name)]
        environment = {**os.environ, "TMPDIR": scratch}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    return Outcome(done.returncode, done.stdout.decode("utf-8", "replace"))


def _dictionary_line(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n'


def main(seconds: int, names: Sequence[str]) -> int:
    """Fuzz the targets, each for the same part of the time; returns the exit status."""
    names = names or target_names()
    share, failed = max(seconds // len(names), 1), 0
    for name in names:
        outcome = fuzz(name, share)
        print(f"{name}: {outcome.inputs} inputs, {outcome.executions:,} executions", flush=True)
        if outcome.status:
            failed += 1
            print("\n".join(outcome.output.splitlines()[-_SHOWN_LINES:]))
            print(f"{name}: failed with {outcome.saved or 'no input saved'}", flush=True)
    print(f"{len(names)} targets of {share} s each, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
