"""Available memory: the least of what the machine, the control groups and the limits leave."""

import subprocess
import sys
from collections import namedtuple

import psutil
import pytest
from thirteen.runtime.available_memory import available_bytes

GIB = 1 << 30
LIMITED = """
import resource
from thirteen.runtime.available_memory import available_bytes
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1))
print(available_bytes())
"""


def test_the_least_of_machine_and_control_groups_is_available(tmp_path, monkeypatch):
    """With files as the kernel writes them: cgroup v1, v2, nested groups, none."""
    for folder in ("proc/self", "sys/fs/cgroup/memory/a/b", "sys/fs/cgroup/c"):
        (tmp_path / folder).mkdir(parents=True)
    machine = namedtuple("Machine", "available")(8 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert available_bytes(tmp_path) == 8 * GIB
    v1 = tmp_path / "sys/fs/cgroup/memory"
    for folder, limit in ((v1, 1 << 63), (v1 / "a", 3 * GIB), (v1 / "a/b", 5 * GIB)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{2 * GIB}\n")
        (folder / "memory.stat").write_text(f"cache 1\ntotal_cache {GIB // 2}\n")
    (tmp_path / "proc/self/cgroup").write_text("8:cpu:/\n4:memory:/a/b\n0::/\n")
    assert available_bytes(tmp_path) == 3 * GIB - 2 * GIB + GIB // 2
    v2 = tmp_path / "sys/fs/cgroup/c"
    (v2 / "memory.max").write_text("max\n")
    (v2 / "memory.current").write_text(f"{GIB}\n")
    (v2 / "memory.stat").write_text("anon 1\nfile 4096\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/c\n")
    assert available_bytes(tmp_path) == 8 * GIB
    (v2 / "memory.max").write_text(f"{2 * GIB}\n")
    assert available_bytes(tmp_path) == GIB + 4096


def test_a_machine_without_control_groups_has_its_own_memory(tmp_path):
    assert 0 < available_bytes(tmp_path) <= psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce it")
def test_a_limit_on_address_space_counts_what_is_in_use():
    left = int(subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, check=True).stdout)
    assert GIB // 2 < left < GIB
