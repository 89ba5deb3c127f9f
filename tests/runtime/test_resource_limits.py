"""Limits of child processes: they only ever lower what the process has."""

import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="Windows has no such limits")

PROGRAM = """
import resource, sys
from thirteen.runtime.trial_process import lower_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 50))
lower_limit("RLIMIT_NOFILE", int(sys.argv[1]))
lower_limit("RLIMIT_OF_ANOTHER_SYSTEM", 1)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("files", "expected"), [(30, "30 50"), (45, "40 50"), (60, "40 50")])
def test_a_limit_stays_below_those_that_are_there(files: int, expected: str) -> None:
    """`ulimit` may have set them; a value above the hard limit would be an error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(files)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
