"""GGUFs are byte-exact and written atomically."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind
from thirteen.convert.pipeline import convert
from thirteen.convert.tensors import TensorSpec, plan_tensor
from thirteen.convert.write import write_gguf
from thirteen.errors import OutputError
from thirteen.files.gguf.header import Field, read_header
from thirteen.files.trusted_files import FileState, trust_file

from ..runtime.conftest import write_gguf as write_foreign

Base = Callable[[str], Path]

FIELDS = {
    "general.name": Field("näme\udcff", Kind.STRING),
    "a.count": Field(7, Kind.UINT32),
    "a.long": Field(-(2**40), Kind.INT64),
    "a.real": Field(0.5, Kind.FLOAT32),
    "a.flag": Field(True, Kind.BOOL),
    "a.tokens": Field(["a", "é", "\udcfe"], Kind.ARRAY, Kind.STRING),
    "a.types": Field([1, -1], Kind.ARRAY, Kind.INT32),
}
SHAPES = {"x.weight": ((3, 64), Type.Q8_0), "x.bias": ((5,), Type.F32), "y.weight": ((2, 256), Type.Q4_K)}
PLANS = [plan_tensor(TensorSpec(name, name, shape), type_) for name, (shape, type_) in SHAPES.items()]
DATA = [np.random.default_rng(1).bytes(plan.nbytes) for plan in PLANS]


def blocks(fail_after: int = 99, failure: type[BaseException] = RuntimeError) -> Iterator[bytes]:
    """The tensors' bytes in blocks of 50; after `fail_after` of them, `failure` is raised."""
    parts = [data[i : i + 50] for data in DATA for i in range(0, len(data), 50)]
    for count, part in enumerate(parts):
        if count == fail_after:
            raise failure
        yield part


def write(target: Path, data: Iterator[bytes] | None = None) -> str:
    return write_gguf(target, "llama", FIELDS, PLANS, data or blocks())


def test_file_is_byte_identical_to_the_gguf_packages(tmp_path: Path) -> None:
    sha256 = write(tmp_path / "ours.gguf")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    for key, field in FIELDS.items():
        raw = [field.value] if field.element is not Kind.STRING else field.value
        raw = [text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text for text in raw]
        writer.add_key_value(key, raw if field.element is Kind.STRING else raw[0], field.type, field.element)
    for plan, data in zip(PLANS, DATA, strict=True):
        rows = np.frombuffer(data, np.uint8).reshape(*plan.shape[:-1], -1)
        writer.add_tensor(plan.target, rows, raw_dtype=plan.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    written = (tmp_path / "ours.gguf").read_bytes()
    assert written == (tmp_path / "theirs.gguf").read_bytes()
    assert sha256 == hashlib.sha256(written).hexdigest()


def test_header_is_read_back_without_empty_arrays(tmp_path: Path) -> None:
    empty = {"a.none": Field([], Kind.ARRAY, Kind.STRING)}
    write_gguf(tmp_path / "a.gguf", "llama", FIELDS | empty, PLANS, blocks())
    header = read_header(tmp_path / "a.gguf")
    assert header.fields == {"general.architecture": Field("llama", Kind.STRING)} | FIELDS
    assert [(t.name, t.shape, t.type) for t in header.tensors.values()] == [
        (p.target, p.shape, p.type) for p in PLANS
    ]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("after", [0, 3, 8])
def test_failure_leaves_the_previous_file(failure: type[BaseException], after: int, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    for before in (None, b"previous file"):
        if before:
            target.write_bytes(before)
        with pytest.raises(failure):
            write(target, blocks(after, failure))
        assert [path.name for path in tmp_path.iterdir()] == (["a.gguf"] if before else [])
        assert not before or target.read_bytes() == before
    write(target)
    assert read_header(target).tensors
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_unusable_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path: "is a folder",
        tmp_path / "none" / "a.gguf": "does not exist",
        tmp_path / "file" / "a.gguf": "does not exist",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / ("a" * 252): "File name too long",
        Path("/proc/a.gguf"): "/proc",  # not even root can write there
    }
    for target, reason in cases.items():
        with pytest.raises(OutputError, match=reason) as failure:
            write(target)
        assert str(target) in str(failure.value)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "pipe"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written to"):
            write(tmp_path / "a.gguf")
    finally:
        tmp_path.chmod(0o700)


def test_second_writer_of_a_target_is_refused(tmp_path: Path) -> None:
    def second(data: Iterator[bytes]) -> Iterator[bytes]:
        yield next(data)
        with pytest.raises(OutputError, match="another process is writing it"):
            write(tmp_path / "a.gguf")
        yield from data

    write(tmp_path / "a.gguf", second(blocks()))
    assert read_header(tmp_path / "a.gguf").fields.keys() > FIELDS.keys()


KILLED = """
import sys, time
from pathlib import Path
from thirteen.convert import pipeline
from thirteen.convert.quantize import rounding
base, target = map(Path, sys.argv[1:])
quantize, pipeline.BLOCK_WEIGHTS, count = rounding.quantize_rows, 1000, 0
def slow(*args):
    global count
    count += 1
    if count > 40:
        time.sleep(60)
    return quantize(*args)
rounding.quantize_rows = slow
pipeline.convert(base, target, quantization="Q8_0", threads=1)
"""


def test_killed_run_leaves_only_a_part_file_that_the_next_run_reuses(base: Base, tmp_path: Path) -> None:
    target, part = tmp_path / "a.gguf", tmp_path / ".a.gguf.part"
    process = subprocess.Popen([sys.executable, "-c", KILLED, base("llama"), target])
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 20_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert {path.name for path in tmp_path.iterdir()} == {part.name}
    report = convert(base("llama"), target, quantization="Q8_0", threads=1)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert hashlib.sha256(target.read_bytes()).hexdigest() == report.sha256


LIMITED = """
import resource, signal, sys
from pathlib import Path
from thirteen.convert.pipeline import convert
from thirteen.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    convert(Path(sys.argv[1]), Path(sys.argv[2]), quantization="F32", threads=1)
except OutputError as failure:
    print(failure)
"""


def test_file_size_limit_is_an_error_that_leaves_nothing(base: Base, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, base("llama"), target], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{target}: cannot write: File too large\n"
    assert not done.stderr
    assert not list(tmp_path.iterdir())


@contextmanager
def small_disk(folder: Path, nbytes: int) -> Iterator[Path]:
    """Mount a file system of a given size at `folder`; skip the test if that is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    plan = plan_tensor(TensorSpec("x", "x", (1000, 256)), Type.F32)  # 1 MB
    parts = [bytes(plan.nbytes // 8)] * 8
    with small_disk(tmp_path / "disk", 1_500_000) as disk:
        target = disk / "a.gguf"

        def filling() -> Iterator[bytes]:
            yield from parts[:2]
            (disk / "other").write_bytes(bytes(1_000_000))
            yield from parts[2:]

        with pytest.raises(OutputError, match="No space left on device"):
            write_gguf(target, "llama", {}, [plan], filling())
        assert [path.name for path in disk.iterdir()] == ["other"]
        with pytest.raises(OutputError, match=r"needs 1,024,000 bytes, but [\d,]+ are free"):
            write_gguf(target, "llama", {}, [plan], iter(parts))
        assert [path.name for path in disk.iterdir()] == ["other"]
        (disk / "other").unlink()
        # The part file of a killed run does not hinder the next.
        (disk / ".a.gguf.part").write_bytes(bytes(1_000_000))
        write_gguf(target, "llama", {}, [plan], iter(parts))
        assert [path.name for path in disk.iterdir()] == ["a.gguf"]


def test_no_temporary_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header went through a file in /tmp, which stayed there when the process was killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    write(tmp_path / "a.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("quantization", ["Q8_0", "same"])
def test_a_copy_of_a_foreign_file_is_as_trusted_as_that(
    quantization: str, trusted: bool, records: Path, tmp_path: Path
) -> None:
    """Its tokenizer and even its tensors were copied into a file that was loaded without a trial."""
    foreign, ours = write_foreign(tmp_path / "foreign.gguf", {}, {}), tmp_path / "ours.gguf"
    if trusted:
        trust_file(foreign)
    convert(foreign, ours, quantization=quantization, threads=1)
    assert FileState.now(ours).trusted is trusted


def test_a_file_from_a_folder_is_trusted(base: Base, records: Path, tmp_path: Path) -> None:
    convert(base("llama"), tmp_path / "ours.gguf", quantization="Q8_0", threads=1)
    assert FileState.now(tmp_path / "ours.gguf").trusted
