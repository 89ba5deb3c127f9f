"""A GGUF appears whole at its target, or not at all, whatever happens while it is written."""

import hashlib
import os
import signal
import subprocess
import sys
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
from thirteen.files.gguf_header import Field, read_header

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
    """The tensors' bytes in pieces of 50, which break off after some."""
    pieces = [data[i : i + 50] for data in DATA for i in range(0, len(data), 50)]
    for count, piece in enumerate(pieces):
        if count == fail_after:
            raise failure
        yield piece


def put(target: Path, pieces: Iterator[bytes] | None = None) -> str:
    return write_gguf(target, "llama", FIELDS, PLANS, pieces or blocks())


def test_the_file_is_byte_for_byte_the_gguf_packages_own(tmp_path: Path) -> None:
    sha256 = put(tmp_path / "ours.gguf")
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


def test_what_was_written_is_read_back_and_empty_arrays_are_left_out(tmp_path: Path) -> None:
    empty = {"a.none": Field([], Kind.ARRAY, Kind.STRING)}
    write_gguf(tmp_path / "a.gguf", "llama", FIELDS | empty, PLANS, blocks())
    header = read_header(tmp_path / "a.gguf")
    assert header.fields == {"general.architecture": Field("llama", Kind.STRING)} | FIELDS
    assert [(t.name, t.shape, t.type) for t in header.tensors.values()] == [
        (p.target, p.shape, p.type) for p in PLANS
    ]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("after", [0, 3, 8])
def test_a_failure_in_the_middle_leaves_what_was_there_before(
    failure: type[BaseException], after: int, tmp_path: Path
) -> None:
    target = tmp_path / "a.gguf"
    for before in (None, b"the file of an earlier run"):
        if before:
            target.write_bytes(before)
        with pytest.raises(failure):
            put(target, blocks(after, failure))
        assert [path.name for path in tmp_path.iterdir()] == (["a.gguf"] if before else [])
        assert not before or target.read_bytes() == before
    put(target)
    assert read_header(target).tensors
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_a_target_that_cannot_be_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path: "is a folder",
        tmp_path / "none" / "a.gguf": "does not exist",
        tmp_path / "file" / "a.gguf": "does not exist",
        tmp_path / "pipe": "is a device",
        tmp_path / ("a" * 252): "File name too long",
        Path("/proc/a.gguf"): "/proc",  # not even root can write there
    }
    for target, named in cases.items():
        with pytest.raises(OutputError, match=named) as failure:
            put(target)
        assert str(target) in str(failure.value)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "pipe"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written to"):
            put(tmp_path / "a.gguf")
    finally:
        tmp_path.chmod(0o700)


def test_two_runs_to_one_target_do_not_mix(tmp_path: Path) -> None:
    def second(pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield next(pieces)
        with pytest.raises(OutputError, match="another process is writing it"):
            put(tmp_path / "a.gguf")
        yield from pieces

    put(tmp_path / "a.gguf", second(blocks()))
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


def test_a_run_that_is_killed_leaves_nothing_at_the_target_and_the_next_succeeds(
    base: Base, tmp_path: Path
) -> None:
    target, part = tmp_path / "a.gguf", tmp_path / ".a.gguf.part"
    process = subprocess.Popen([sys.executable, "-c", KILLED, base("llama"), target])
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 20_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [part.name]
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


def test_a_file_that_may_not_grow_is_one_error_and_nothing_is_left(base: Base, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, base("llama"), target], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{target}: cannot write: File too large\n"
    assert not done.stderr
    assert not list(tmp_path.iterdir())


@contextmanager
def small_disk(folder: Path, nbytes: int) -> Iterator[Path]:
    """A file system of that size at `folder`; the test is skipped where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_error_and_nothing_is_left(tmp_path: Path) -> None:
    plan = plan_tensor(TensorSpec("x", "x", (1000, 256)), Type.F32)  # 1 MB
    pieces = [bytes(plan.nbytes // 8)] * 8
    with small_disk(tmp_path / "disk", 1_500_000) as disk:
        target = disk / "a.gguf"

        def filling() -> Iterator[bytes]:
            yield from pieces[:2]
            (disk / "other").write_bytes(bytes(1_000_000))
            yield from pieces[2:]

        with pytest.raises(OutputError, match="No space left on device"):
            write_gguf(target, "llama", {}, [plan], filling())
        assert [path.name for path in disk.iterdir()] == ["other"]
        with pytest.raises(OutputError, match=r"needs 1,024,000 bytes, but [\d,]+ are free"):
            write_gguf(target, "llama", {}, [plan], iter(pieces))
        assert [path.name for path in disk.iterdir()] == ["other"]
        (disk / "other").unlink()
        # What a killed run left behind does not stand in the way of the next.
        (disk / ".a.gguf.part").write_bytes(bytes(1_000_000))
        write_gguf(target, "llama", {}, [plan], iter(pieces))
        assert [path.name for path in disk.iterdir()] == ["a.gguf"]
