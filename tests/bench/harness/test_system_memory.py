"""Resident memory of this process, and the page cache."""

import mmap
import re
import sys
from pathlib import Path

import pytest
from thirteen.bench.harness.system_memory import (
    cached_fraction,
    drop_from_page_cache,
    read_resident_memory,
    resident_file_bytes,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports memory by mapping")


@linux
def test_resident_memory_is_the_kernels():
    found = read_resident_memory()
    kib = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE))
    expected = [int(kib[name]) << 10 for name in ("Rss", "Pss", "Anonymous")]
    assert found is not None
    assert [found.rss_bytes, found.pss_bytes, found.anonymous_bytes] == pytest.approx(expected, rel=0.05)
    assert 0 < found.pss_bytes <= found.rss_bytes


@linux
def test_only_mappings_of_the_file_itself_count(tmp_path):
    path, other = tmp_path / "my model.gguf", tmp_path / "my model.gguf.other"
    for file in (path, other):
        file.write_bytes(bytes(64 * mmap.PAGESIZE))
    with path.open("rb") as one, mmap.mmap(one.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert sum(data[:: mmap.PAGESIZE]) == 0
        with other.open("rb") as two, mmap.mmap(two.fileno(), 0, access=mmap.ACCESS_READ) as rest:
            assert sum(rest[:: mmap.PAGESIZE]) == 0
            assert resident_file_bytes(path) == 64 * mmap.PAGESIZE
    assert resident_file_bytes(path) == 0


def test_a_written_file_is_cached_and_stays_while_it_is_mapped(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * mmap.PAGESIZE))
    fraction = cached_fraction(path)
    if fraction is None:
        pytest.skip("this system has no mincore")
    assert fraction == 1
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert sum(data[::4096]) == 0  # touched pages cannot be dropped
        assert not drop_from_page_cache(path)
