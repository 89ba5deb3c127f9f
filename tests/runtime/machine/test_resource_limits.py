"""Limits of child processes: they only ever lower what the process has."""

import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="Windows has no such limits")

PROGRAM = """
import resource, sys
from thirteen.runtime.machine.resource_limits import limit_processor_time, lower_limit
resource.setrlimit(resource.RLIMIT_CPU, (3, 5))
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 50))
limit_processor_time(int(sys.argv[1]))
lower_limit("RLIMIT_NOFILE", int(sys.argv[2]))
lower_limit("RLIMIT_OF_ANOTHER_SYSTEM", 1)
print(*resource.getrlimit(resource.RLIMIT_CPU), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("seconds", "files", "expected"), [(1, 30, "2 5 30 50"), (60, 45, "5 5 40 50"), (60, 60, "5 5 40 50")]
)
def test_a_limit_stays_below_those_that_are_there(seconds, files, expected):
    """`ulimit` may have set them; a value above the hard limit would be an error."""
    command = [sys.executable, "-c", PROGRAM, str(seconds), str(files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected.split()
