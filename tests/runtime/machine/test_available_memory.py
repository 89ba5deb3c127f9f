"""Available memory: the least of what the machine, the control groups and the limits leave."""

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
from thirteen.runtime.machine import available_memory
from thirteen.runtime.machine.available_memory import available_bytes

GIB = 1 << 30
LIMITED = """
import resource
from thirteen.runtime.machine.available_memory import available_bytes
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1))
print(available_bytes())
"""


def test_the_least_of_machine_and_control_groups_is_available(monkeypatch):
    machine = namedtuple("Machine", "available")(8 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    for limits, expected in (([], 8), ([(9, 2), (4, 1)], 3), ([(1, 2)], 0)):
        scaled = [(limit * GIB, used * GIB) for limit, used in limits]
        monkeypatch.setattr(available_memory, "memory_limits", lambda _, found=scaled: found)
        assert available_bytes(Path("unused")) == expected * GIB


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce it")
def test_a_limit_on_address_space_counts_what_is_in_use():
    left = int(subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, check=True).stdout)
    assert GIB // 2 < left < GIB
