"""`thirteen doctor` with the real machine, and with each fault that it tells apart."""

import json
import shutil
import sys
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from thirteen.bench.peers import speed_check
from thirteen.bench.peers.speed_check import SpeedCheck
from thirteen.cli.main import main
from thirteen.files.processors import read_cpuinfo
from thirteen.quality.environment import this_build
from thirteen.runtime.native import struct_layouts
from thirteen.workflows import doctor, model_files
from thirteen.workflows.doctor import (
    build_finding,
    cache_finding,
    diagnose,
    embedded_finding,
    llama_findings,
    memory_finding,
    processor_finding,
    speed_finding,
    versions_finding,
)

from ..runtime.conftest import write_gguf

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
    assert found["processor"] and found["cores"].partition(",")[0].isdigit()
    assert found["versions"].startswith(f"Python {sys.version.split()[0]}, thirteen ")
    assert found["embedded model"].startswith("SmolLM2-135M-Instruct.Q4_1.gguf, 98 MB")
    assert "available of" in found["memory"] and "free on its disk" in found["cache"]
    flags, info = read_cpuinfo()[1], this_build().llama_cpp_system
    assert ("AVX2" in found["llama.cpp"]) == ("AVX2 = 1" in info)
    assert ("AVX2" in found["processor"]) == ("avx2" in flags)


def test_the_processor_has_the_usual_names_of_its_instruction_sets():
    assert processor_finding("EPYC", ZEN4).value == "EPYC (AVX2, AVX-512, AVX-512 VNNI, AVX-512 BF16)"
    arm = frozenset({"fp", "asimd", "asimddp", "i8mm"})
    assert processor_finding("Pi", arm).value == "Pi (NEON, dotprod, i8mm)"
    assert processor_finding("M4", frozenset()).value.startswith("M4 (")


@pytest.mark.parametrize(
    ("info", "flags", "words"),
    [
        (PORTABLE, ZEN4, "not use AVX-512, AVX-512 VNNI, AVX-512 BF16, which the processor has; it reads"),
        (
            NATIVE.replace("AVX512_BF16 = 1", "AVX512_BF16 = 0"),
            ZEN4,
            "not use AVX-512 BF16, which the processor has; it is slower",
        ),
        (NATIVE, frozenset({"avx2"}), "needs AVX-512, AVX-512 VNNI, AVX-512 BF16, which the processor lacks"),
        ("CPU : NEON = 1 | ", frozenset({"asimd", "i8mm"}), "i8mm, which the processor has; it is slower"),
    ],
)
def test_a_build_for_another_processor_is_wrong(info, flags, words):
    """`make wheel` and `make demo` again, the advice before, changed nothing."""
    problem = build_finding(info, flags).problem or ""
    assert words in problem
    assert Requirement(problem.split("'")[1]) in map(Requirement, requires("thirteen") or [])


@pytest.mark.parametrize(
    ("info", "flags"),
    [(NATIVE, ZEN4), (NATIVE, frozenset()), ("CUDA : ARCHS = 890 | CPU : NEON = 1 | ", frozenset({"asimd"}))],
)
def test_a_build_that_fits_or_an_unknown_processor_is_right(info, flags):
    assert build_finding(info, flags).problem is None


def test_other_struct_layouts_are_wrong(monkeypatch):
    monkeypatch.setattr(struct_layouts, "differences", lambda *_: iter(["n_ctx is 7, not 512"]))
    struct_layouts.check_struct_layouts.cache_clear()
    problems = [finding.problem for finding in llama_findings(read_cpuinfo()[1])]
    struct_layouts.check_struct_layouts.cache_clear()
    assert any("n_ctx is 7, not 512" in (problem or "") for problem in problems)


def test_little_memory_is_wrong():
    assert memory_finding(2 * GIB, 8 * GIB) == doctor.Finding("memory", "2.1 GB available of 8.6 GB")
    assert "only 537 MB of memory is available" in (memory_finding(GIB // 2, 8 * GIB).problem or "")


def test_a_cache_folder_has_a_size_and_must_be_writable(cache, tmp_path, monkeypatch):
    cache.mkdir()
    (cache / "file").write_bytes(bytes(3_000_000))
    assert f"{cache}, 3 MB in 1 files" in cache_finding().value
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    assert "only 5 MB is free on the disk of" in (cache_finding().problem or "")
    monkeypatch.setenv("THIRTEEN_CACHE", str(cache / "file" / "folder"))
    assert "set THIRTEEN_CACHE to a folder that can be written to" in (cache_finding().problem or "")
    monkeypatch.setenv("THIRTEEN_CACHE", "/proc/1")  # exists, but takes no files
    assert "cannot be used" in (cache_finding().problem or "")


def test_a_file_of_the_cache_that_another_process_removes_is_no_problem(cache, monkeypatch):
    """The whole cache was said not to be usable."""
    cache.mkdir()
    (cache / "kept").write_bytes(bytes(3_000_000))
    (cache / "gone").touch()
    is_file = Path.is_file

    def removing(path: Path) -> bool:
        found = is_file(path)
        (cache / "gone").unlink(missing_ok=True)
        return found or path.name == "gone"

    monkeypatch.setattr(Path, "is_file", removing)
    assert f"{cache}, 3 MB in 1 files" in cache_finding().value


def test_a_package_that_is_missing_or_too_old_is_wrong(monkeypatch):
    """Those of extras are not required."""
    assert versions_finding().problem is None
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "0.2.1" if name == "numpy" else real(name))
    assert versions_finding().problem == "not installed in a version that fits: pip install 'numpy>=1.26'"


def test_an_embedded_model_that_is_not_here_is_not_wrong(monkeypatch):
    assert "SmolLM2-135M" in embedded_finding().value
    monkeypatch.setattr(doctor, "find_embedded", lambda: None)
    assert embedded_finding() == doctor.Finding("embedded model", "downloaded on first use")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["thirteen", "doctor", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.fixture
def healthy(monkeypatch):
    """A machine with which nothing is wrong."""
    monkeypatch.setattr(doctor, "read_cpuinfo", lambda: ("", frozenset()))  # whatever the build is for
    monkeypatch.setattr(doctor, "control_group_finding", lambda: doctor.Finding("control groups", "[none]"))
    monkeypatch.setattr(doctor, "available_bytes", lambda: 4 * GIB)
    monkeypatch.setattr(doctor, "DISK_MIN", 0)


@pytest.mark.parametrize(
    ("ratio", "verdict", "too_slow"),
    [(1.2, "faster", False), (1.0, "as fast", False), (0.96, "as fast", False), (0.94, "slower", True)],
)
def test_an_engine_that_is_slower_than_llama_cpp_python_is_wrong(ratio, verdict, too_slow):
    """A difference of a few per cent is within what the measurement can tell."""
    seconds = {"thirteen": 2 / ratio, "llama-cpp-python": 3.0, "llama-cpp-python flash_attn=True": 2.0}
    finding = speed_finding(SpeedCheck(seconds, ratio))
    assert finding.value == (
        f"an ordinary question takes {2 / ratio:.2f} s, llama-cpp-python 3.00 s, llama-cpp-python "
        f"flash_attn=True 2.00 s: {ratio:.2f} of its speed, {verdict}"
    )
    assert (finding.problem is not None) is too_slow
    if too_slow:
        assert "this engine has 0.94 of the speed of plain llama-cpp-python" in (finding.problem or "")


@pytest.mark.slow
@pytest.mark.usefixtures("healthy")
def test_the_exit_status_tells_whether_something_is_wrong_or_the_engine_too_slow(
    monkeypatch, capsys, tmp_path
):
    checked: list[Path] = []
    tiny = write_gguf(tmp_path / "tiny.gguf", {}, {})
    embedded = write_gguf(tmp_path / "embedded.gguf", {}, {})
    monkeypatch.setattr(model_files, "default_model", lambda *_, **__: embedded)

    def check(own_s: float) -> None:
        def check_speed(model: Path, *, progress: object) -> SpeedCheck:
            checked.append(model)
            return SpeedCheck({"thirteen": own_s, "llama-cpp-python": 3.0}, 3.0 / own_s)

        monkeypatch.setattr(speed_check, "check_speed", check_speed)

    check(2.0)
    assert run(monkeypatch, "--speed", "--model", str(tiny)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"model {tiny}" in out and "KV cache in" in out  # how an engine will run it
    assert "an ordinary question takes 2.00 s, llama-cpp-python 3.00 s: 1.50 of its speed, faster" in out
    check(4.0)
    assert run(monkeypatch, "--speed") == 1
    (wrong,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong: "))
    assert "this engine has 0.75 of the speed of plain llama-cpp-python" in wrong
    assert run(monkeypatch, "--speed", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    (problem,) = (finding["problem"] for finding in report["findings"] if finding["problem"])
    assert wrong == f"wrong: {problem}"
    assert checked == [tiny, embedded, embedded]
    assert run(monkeypatch) == 0  # without --speed nothing is timed
    assert len(checked) == 3 and "wrong:" not in (shown := capsys.readouterr().out) and "[none]" in shown
    monkeypatch.setattr(doctor, "available_bytes", lambda: 1000)
    assert run(monkeypatch) == 1 and "of memory is available" in capsys.readouterr().out
