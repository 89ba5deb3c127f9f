"""Limits of control groups, from files as the kernel writes them, and the memory that they leave."""

import os

import pytest
from thirteen.runtime import machine
from thirteen.runtime.machine import available_bytes, memory_limits, processor_limits

MIB = 1 << 20


@pytest.fixture
def groups(tmp_path):
    """groups(membership, {file: content}): a root with these files."""

    def groups(membership, files):
        for name, content in ({"proc/self/cgroup": membership} | files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return groups


def test_the_limits_of_the_group_and_of_its_parents(groups):
    root = groups(
        "0::/a/b\n",
        {
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/memory.max": "max\n",
            "sys/fs/cgroup/a/b/memory.max": f"{64 * MIB}\n",
            "sys/fs/cgroup/a/b/memory.current": f"{10 * MIB}\n",
            "sys/fs/cgroup/a/b/memory.stat": f"anon 1\nfile {4 * MIB}\nshmem {MIB}\n",
        },
    )
    assert list(processor_limits(root)) == [1.5]
    assert list(memory_limits(root)) == [(64 * MIB, 7 * MIB)]  # shared memory cannot be dropped
    assert available_bytes(root) == 57 * MIB < available_bytes(root / "none")


def test_threads_are_no_more_than_the_group_is_granted(monkeypatch):
    """A thread for each of 128 hardware threads was tried in a container with two processors."""
    for limits, expected in (((), (4, 8)), ((1.5, 6.0), (2, 2)), ((6.0,), (4, 6)), ((0.2,), (1, 1))):
        for name, value in (("processor_limits", limits), ("physical_cores", 4), ("usable_processors", 8)):
            monkeypatch.setattr(machine, name, lambda value=value: value)
        assert (machine.default_threads(), machine.usable_threads()) == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="other systems do not tell")
def test_cores_of_all_clusters_are_counted(groups, monkeypatch):
    """Linux numbers the cores of each cluster of an Arm processor from 0 on, and half were not counted."""
    path = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = groups("", {path.format(cpu): siblings for cpu, siblings in enumerate(("0-1", "0-1", "2", "3"))})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5))  # nothing is known of the last one
    assert machine.physical_cores(root) == 4
