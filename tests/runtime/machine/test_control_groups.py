"""Limits of control groups, from files as the kernel writes them."""

import os
from pathlib import Path

import pytest
from thirteen.runtime.machine import threads
from thirteen.runtime.machine.control_groups import memory_limits, processor_limits

MIB = 1 << 20
V1_UNLIMITED = 9223372036854771712


@pytest.fixture
def groups(tmp_path):
    """groups(membership, {file: content}): a root with these files."""

    def groups(membership: str, files: dict[str, str]) -> Path:
        for name, content in ({"proc/self/cgroup": membership} | files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return groups


def test_version_2_has_the_limits_of_the_group_and_of_its_parents(groups):
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


def test_threads_are_no_more_than_the_group_is_granted(monkeypatch):
    """A thread for each of 128 hardware threads was tried in a container with two processors."""
    for limits, expected in (((), (4, 8)), ((1.5, 6.0), (2, 2)), ((6.0,), (4, 6)), ((0.2,), (1, 1))):
        for name, value in (("processor_limits", limits), ("physical_cores", 4), ("usable_processors", 8)):
            monkeypatch.setattr(threads, name, lambda value=value: value)
        assert (threads.default_threads(), threads.usable_threads()) == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="other systems do not tell")
def test_cores_of_all_clusters_are_counted(tmp_path, monkeypatch):
    """Linux numbers the cores of each cluster of an Arm processor from 0 on, and half were not counted."""
    for cpu, siblings in enumerate(("0-1", "0-1", "2", "3")):
        (tmp_path / str(cpu)).write_text(siblings)
    monkeypatch.setattr(threads, "_SIBLINGS", f"{tmp_path}/{{}}")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5))  # nothing is known of the last one
    assert threads.physical_cores() == 4


def test_version_1_has_the_limits_of_each_controller(groups):
    root = groups(
        "3:cpuset:/x\n2:cpu,cpuacct:/box\n1:memory:/box\n",
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{V1_UNLIMITED}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "0\n",
            "sys/fs/cgroup/memory/memory.stat": "total_cache 0\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{64 * MIB}\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{10 * MIB}\n",
            "sys/fs/cgroup/memory/box/memory.stat": (
                f"cache 1\ntotal_cache {3 * MIB}\ntotal_shmem {2 * MIB}\n"
            ),
        },
    )
    assert list(processor_limits(root)) == [0.5]
    assert list(memory_limits(root)) == [(64 * MIB, 9 * MIB)]
