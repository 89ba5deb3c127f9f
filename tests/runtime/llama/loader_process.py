"""The process of native_loader.py."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


class LoaderProcess:
    """Loads files, each in the same process until a signal ends it; then it is started again."""

    def __init__(self, base: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start with the first file.

        Args:
            base: the model of all adapters.
            environment: variables of the process; by default those of this one.
        """
        self._environment = environment
        self._command = [sys.executable, str(Path(__file__).with_name("native_loader.py")), str(base)]
        self._process: subprocess.Popen[str] | None = None
        self.outcomes: Counter[str] = Counter()

    def __call__(self, path: Path) -> str:
        """The outcome of a file."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        outcome = json.loads(line) if line else f"died: status {self.close()}"
        self.outcomes[outcome.split(":")[0]] += 1
        return str(outcome)

    def close(self) -> int:
        """End the process, if it runs; returns its exit status."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.communicate()
        return process.returncode


def is_survived(outcome: str) -> bool:
    """Whether the file was refused in one line, or ran."""
    refused = outcome.startswith(("refused: ", "llama.cpp refused: "))
    return outcome == "ran" or (refused and "\n" not in outcome)
