"""Write a GGUF in one pass: the header first, with every offset known, then the tensors' bytes in order.

All goes to a part file beside the target, which takes the target's name only when it is whole and on disk.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGUFValueType, GGUFWriter

from ..errors import OutputError
from ..files.gguf_header import Field
from .tensors import ALIGNMENT, TensorPlan

try:
    import fcntl
except ImportError:  # Windows: there, two conversions to one target are not told from each other
    fcntl = None  # type: ignore[assignment]


def write_gguf(
    target: Path,
    architecture: str,
    fields: Mapping[str, Field],
    plans: Sequence[TensorPlan],
    blocks: Iterable[bytes],
) -> str:
    """Write `target` from its metadata, its tensors' plans, and their bytes: `blocks`, end to end in order.

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: the target cannot be written, or the disk is full. Nothing is left behind then.
    """
    with _part_file(target, sum(plan.nbytes for plan in plans)) as (file, part):
        _write_header(part, architecture, fields, plans)
        file.seek(0)
        digest = hashlib.sha256(file.read())
        chunks = iter(blocks)
        _put(file, digest, bytes(-file.tell() % ALIGNMENT))
        for plan in plans:
            left = plan.nbytes
            while left:
                chunk = next(chunks)
                _put(file, digest, chunk)
                left -= len(chunk)
            assert left == 0, plan
            _put(file, digest, bytes(-plan.nbytes % ALIGNMENT))
    return digest.hexdigest()


def check_target(target: Path, *sources: Path) -> None:
    """Raise OutputError if `target` cannot become a file or is one of those read: before the work, not after.

    A folder among `sources` may take a new file, or another GGUF, but keeps its own files.
    """
    if target.is_dir():
        raise OutputError(f"{target}: is a folder, not a file")
    if target.exists():
        if not target.is_file():
            raise OutputError(f"{target}: is a device, not a file")
        for source in sources:
            own = source.is_dir() and target.suffix != ".gguf" and target.absolute().parent.samefile(source)
            if own or (source.is_file() and target.samefile(source)):
                raise OutputError(f"{target}: is read here, and would be lost: choose another name")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"{target}: the folder {target.absolute().parent} does not exist")
    if not os.access(target.absolute().parent, os.W_OK):
        raise OutputError(f"{target}: the folder {target.absolute().parent} cannot be written to")


@contextmanager
def _part_file(target: Path, nbytes: int) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside `target` that replaces it when the block ends well and is removed when it does not."""
    check_target(target)
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("ab+") as file:
            _lock(file, part, target)
            try:
                free = shutil.disk_usage(target.absolute().parent).free
                if free < nbytes:
                    raise OutputError(f"{target}: needs {nbytes:,} bytes, but {free:,} are free on its disk")
                yield file, part
                file.flush()
                os.fsync(file.fileno())
                part.replace(target)
            finally:
                with suppress(FileNotFoundError):  # gone when it has taken the target's name
                    part.unlink()
        _sync_folder(target.absolute().parent)
    except OSError as failure:
        raise OutputError(f"{target}: {failure.strerror or failure}") from None


def _lock(file: BinaryIO, part: Path, target: Path) -> None:
    """Hold the part file, which a killed run may have left, against a second run at the same time."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{target}: another conversion is writing it") from None
        # One that ended between the opening and the locking has given this very file the target's name.
        if not part.exists() or not os.path.samestat(part.stat(), os.fstat(file.fileno())):
            raise OutputError(f"{target}: another conversion has just written it")
    file.truncate(0)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put(file: BinaryIO, digest: Any, chunk: bytes) -> None:
    file.write(chunk)
    digest.update(chunk)


def _write_header(
    part: Path, architecture: str, fields: Mapping[str, Field], plans: Sequence[TensorPlan]
) -> None:
    writer = GGUFWriter(None, architecture)
    for key, field in fields.items():
        if field.type is not GGUFValueType.ARRAY or field.value:  # the format has no empty arrays
            writer.add_key_value(key, _encoded(field), field.type, field.element)
    for plan in plans:
        writer.add_tensor_info(plan.target, plan.shape, np.dtype(np.float32), plan.nbytes, plan.type)
    writer.write_header_to_file(part)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _encoded(field: Field) -> Any:
    """Text as bytes, since a few published tokens are no UTF-8."""
    if field.type is GGUFValueType.STRING:
        return field.value.encode("utf-8", "surrogateescape")
    if field.element is GGUFValueType.STRING:
        return [text.encode("utf-8", "surrogateescape") for text in field.value]
    return field.value


def header_size(architecture: str, fields: Mapping[str, Field], plans: Sequence[TensorPlan]) -> int:
    """How long the file is before the tensors' bytes begin, whatever types the tensors have."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header"
        _write_header(path, architecture, fields, plans)
        size = path.stat().st_size
    return size + -size % ALIGNMENT
