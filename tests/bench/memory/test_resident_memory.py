"""Resident memory, read from files as the Linux kernel writes them."""

import mmap
from pathlib import Path

import pytest
from thirteen.bench.memory.os_page_cache import cached_fraction, drop_from_page_cache
from thirteen.bench.memory.resident_memory import (
    ResidentMemory,
    read_resident_memory,
    resident_file_bytes,
    split_footprint,
)

ROLLUP = """5564bda31000-7ffce99ca000 ---p 00000000 00:00 0                          [rollup]
Rss:                1852 kB
Pss:                 220 kB
Anonymous:           116 kB
"""
SMAPS = """5564bda31000-5564bda33000 r--p 00000000 08:01 42   /models/my model.gguf
Size:                  8 kB
Rss:                   4 kB
VmFlags: rd mr mw me
5564bda33000-5564bda38000 r--p 00002000 08:01 42   /models/my model.gguf
Rss:                  16 kB
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Rss:                1000 kB
7f0000001000-7f0000002000 r--p 00000000 08:01 43   /models/my model.gguf.other
Rss:                2000 kB
"""


def test_resident_memory_is_the_kernels_rollup(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text(ROLLUP)
    assert read_resident_memory(tmp_path) == ResidentMemory(1852 << 10, 220 << 10, 116 << 10)


@pytest.mark.parametrize("text", [None, "", "Rss: 1 kB\n", "nonsense\n"])
def test_resident_memory_is_none_on_other_systems(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "smaps_rollup").write_text(text)
    assert read_resident_memory(tmp_path) is None


def test_only_mappings_of_the_file_itself_count(tmp_path: Path) -> None:
    (tmp_path / "smaps").write_text(SMAPS)
    assert resident_file_bytes(Path("/models/my model.gguf"), tmp_path) == 20 << 10
    assert resident_file_bytes(Path("/models/absent"), tmp_path) == 0


def test_the_parts_sum_to_the_rss_even_where_the_program_shrank() -> None:
    before, after = ResidentMemory(100, 80, 50), ResidentMemory(450, 400, 300)
    split = split_footprint(before, after, mapped=200, copied=120, kv=40)
    assert split.program_bytes + 200 + 120 + 40 + split.other_bytes == 450
    assert split.other_bytes == -10


def test_touched_pages_of_a_real_mapping_count(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * mmap.PAGESIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not Path("/proc/self/smaps").exists():
            pytest.skip("this system has no smaps")
        assert sum(data[::4096]) == 0
        assert resident_file_bytes(path) == 64 * mmap.PAGESIZE


def test_a_written_file_is_cached_and_stays_while_it_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * mmap.PAGESIZE))
    fraction = cached_fraction(path)
    if fraction is None:
        pytest.skip("this system has no mincore")
    assert fraction == 1
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert sum(data[::4096]) == 0  # touched pages cannot be dropped
        assert not drop_from_page_cache(path)
