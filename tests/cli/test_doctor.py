"""`thirteen doctor` with the real machine, and with each fault that it tells apart."""

import json
import shutil
import sys
from importlib.metadata import requires
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from thirteen.bench.environment import this_build
from thirteen.cli.doctor import Finding, build_finding, cache_finding, diagnose, memory_finding

from ..commands import Commands

GIB = 1 << 30
ZEN4 = frozenset({"avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16"})
PORTABLE = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | AVX512 = 0 | OPENMP = 1 | "
NATIVE = PORTABLE.replace("AVX512 = 0", "AVX512 = 1 | AVX512_VNNI = 1 | AVX512_BF16 = 1")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_this_machine_is_described():
    found = {finding.name: finding.value for finding in diagnose()}
    assert found["versions"].startswith(f"Python {sys.version.split()[0]}, thirteen ")
    assert found["embedded model"].startswith("SmolLM2-135M-Instruct.Q4_1.gguf, 98 MB")
    assert "available of" in found["memory"] and found["cache"].endswith(" free")
    assert "computes with" in found["processor"]
    assert ("AVX2" in found["llama.cpp"]) == ("AVX2 = 1" in this_build().llama_cpp_system)


def test_a_build_for_another_processor_is_wrong():
    """`make wheel` and `make demo` again, the advice before, changed nothing."""
    for info, flags, words in (
        (PORTABLE, ZEN4, "does not use AVX-512, AVX-512 VNNI, AVX-512 BF16; compile"),
        (NATIVE, frozenset({"avx2"}), "needs AVX-512, AVX-512 VNNI, AVX-512 BF16, which the processor lacks"),
        ("CPU : NEON = 1 | ", frozenset({"asimd", "i8mm"}), "does not use i8mm; compile"),
        (NATIVE, ZEN4, None),
        (NATIVE, frozenset(), None),
        ("CUDA : ARCHS = 890 | CPU : NEON = 1 | ", frozenset({"asimd"}), None),
    ):
        problem = build_finding(info, flags).problem
        if words is None:
            assert problem is None
        else:
            assert problem and words in problem
            assert Requirement(problem.split("'")[1]) in map(Requirement, requires("thirteen") or [])


def test_little_memory_is_wrong():
    assert memory_finding(2 * GIB, 8 * GIB) == Finding("memory", "2.1 GB available of 8.6 GB")
    assert "only 537 MB of memory is available" in (memory_finding(GIB // 2, 8 * GIB).problem or "")


def test_a_cache_folder_must_have_room_and_be_writable(cache, monkeypatch):
    cache.mkdir()
    (cache / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
        assert "only 5 MB is free on the disk of" in (cache_finding().problem or "")
    monkeypatch.setenv("THIRTEEN_CACHE", str(cache / "file" / "folder"))
    assert "set THIRTEEN_CACHE to a folder that can be written to" in (cache_finding().problem or "")


def test_problems_come_first_and_the_exit_status_tells(monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", "/proc/1")  # exists, but takes no files
    with Commands() as thirteen:
        done, as_json = thirteen("doctor"), thirteen("doctor", "--json")
    assert done.status == 1 and "the cache folder cannot be used" in done.stdout
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("wrong: ") and not last.startswith("wrong: ")
    report = json.loads(as_json.stdout)
    assert any("the cache folder cannot be used" in (one["problem"] or "") for one in report["findings"])
