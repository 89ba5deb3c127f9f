"""Writes a static site that runs a model in the browser: the server's page, wllama and the model.

The model is split into parts, each named by its hash: static hosts limit the size of a file, and a download
resumes at the first missing part.
"""

import io
import json
import struct
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256, sha512
from math import prod
from pathlib import Path
from typing import Any

from ..errors import FileError, OptionError, OutputError, as_line
from ..files.cache_folder import cache_dir
from ..files.gguf.header import Header, read_header
from ..files.gguf.model_shape import read_decoder_shape
from ..files.json_file import read_bounded, read_json
from ..files.output import check_folder, output_errors, write_file
from .static_files import PAGE

APP = Path(__file__).with_name("app")  # its files stand beside the page's, or for them
FILE_BYTES_MAX = (1 << 31) - 1  # wllama's seek offset is a signed 32-bit integer
PART_BYTES = 8 << 20
_DESCRIPTION, _PARTS, _WORKER = "model.json", "parts", "sw.js"

# wllama (llama.cpp for browsers) is 10 MB of another project that few users need: it comes from npm.
WLLAMA = "@wllama/wllama@3.13.0"
_WLLAMA_SHA512 = "ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA=="
_WLLAMA_FILES = ("esm/index.min.js", "esm/wasm/wllama.wasm", "LICENCE")
_ARCHIVE_BYTES_MAX = 1 << 26
_IN_FILE_NAME = str.maketrans("/@", "--")  # as npm names it


def write_site(model: Path, folder: Path, wllama: dict[str, bytes], *, context: int = 2048) -> dict[str, Any]:
    """Write a static site that runs a model in the browser.

    Args:
        model: a GGUF file of at most 2 GB.
        folder: a new or empty folder, or one that this function has written before.
        wllama: files of wllama by name; see wllama_files().
        context: context length, capped at the length the model was trained for.

    Returns:
        The `folder`, the number of `files`, parts included, and their total size, `nbytes`.
    """
    header = read_header(model)
    if header.file_bytes > FILE_BYTES_MAX:
        raise FileError(f"{model}: {header.file_bytes} bytes; a browser loads at most {FILE_BYTES_MAX}")
    shape = read_decoder_shape(header)
    check_site_folder(folder)
    with output_errors(folder):
        parts = list(_write_parts(model, folder))
        description = {
            "name": model.stem,
            "file_bytes": header.file_bytes,
            "context": min(context, shape.context),
            # In WebAssembly q8_0 is the fastest: it has SIMD kernels, and converting f16 has none.
            "kv": "f16" if any(width % 32 for width in shape.head_widths) else "q8_0",
            "parts": parts,
            **tensor_layout(header),
        }
        files = _site_files(wllama, description)
        for path, content in files.items():
            _write(folder / path, content)
        written = {folder / part["name"] for part in parts}
        for old in {*folder.glob(f"{_PARTS}/{'[0-9a-f]' * 16}.bin")} - written:
            old.unlink()
    nbytes = header.file_bytes + sum(map(len, files.values()))
    return {"folder": folder, "files": len(files) + len(parts), "nbytes": nbytes}


def tensor_layout(header: Header) -> dict[str, Any]:
    """What the page needs for changing types: the alignment, and the tensors in the order of their data.

    Each has its type, its blocks of 32 weights, its first byte, and the byte of the header with its type.
    """
    tensors = sorted(header.tensors.values(), key=lambda tensor: tensor.offset)
    with header.path.open("rb") as file:
        head = file.read(tensors[0].offset)
    described = []
    for tensor in tensors:
        name, dimensions = tensor.name.encode("utf-8", "surrogateescape"), len(tensor.shape)
        numbers = (len(name), name, dimensions, *reversed(tensor.shape))
        declared = struct.pack(f"<Q{len(name)}sI{dimensions}Q", *numbers)
        place = {"start": tensor.offset, "type_at": head.rindex(declared) + len(declared)}
        described.append({"type": tensor.type, "blocks": prod(tensor.shape) // 32, **place})
    return {"alignment": header.metadata.get("general.alignment", 32), "tensors": described}


def check_site_folder(folder: Path) -> None:
    """Raise OutputError if a folder cannot be written, or contains files that write_site() did not write."""
    check_folder(folder)
    try:
        written = "file_bytes" in read_json(folder / _DESCRIPTION)
    except FileError:
        written = False
    if not written and folder.exists() and {path.name for path in folder.iterdir()} - {_PARTS}:
        raise OutputError(f"{folder}: contains files of something else; give a new folder")


def _write_parts(model: Path, folder: Path) -> Iterator[dict[str, Any]]:
    with model.open("rb") as file:
        while content := file.read(PART_BYTES):
            digest = sha256(content)
            name = f"{_PARTS}/{digest.hexdigest()[:16]}.bin"
            _write(folder / name, content)
            integrity = f"sha256-{b64encode(digest.digest()).decode()}"
            yield {"name": name, "bytes": len(content), "integrity": integrity}


def _site_files(wllama: dict[str, bytes], description: dict[str, Any]) -> dict[str, bytes]:
    """Content of all files but the parts, by path; the description, by which a folder is known, first."""
    files = {_DESCRIPTION: json.dumps(description, indent=1).encode()}
    for folder in (PAGE, APP):
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files |= {f"page/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}
    files |= {f"wllama/{name}": content for name, content in wllama.items()}
    files["index.html"] = files.pop("page/index.html")
    worker = files.pop(f"page/{_WORKER}")
    version = sha256(b"".join(files.values())).hexdigest()[:16]
    constants = f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps([*files], indent=1)};\n\n"
    return files | {_WORKER: constants.encode() + worker}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)


def wllama_files(archive: Path | None = None) -> dict[str, bytes]:
    """Files of wllama that a site needs, by name.

    Args:
        archive: the .tgz of the npm package; by default it is downloaded once and cached.

    Raises:
        FileError: the archive is unreadable, has the wrong hash, or cannot be downloaded.
    """
    return npm_files(archive or cached_archive(WLLAMA), _WLLAMA_SHA512, _WLLAMA_FILES)


def npm_files(archive: Path, expected: str, paths: tuple[str, ...]) -> dict[str, bytes]:
    """Files of an npm package's archive by name; `expected` is its SHA-512 in base64, as npm publishes it."""
    content = read_bounded(archive, _ARCHIVE_BYTES_MAX)
    if (digest := b64encode(sha512(content).digest()).decode()) != expected:
        raise FileError(f"{archive}: sha512 {digest}, expected {expected}")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = {Path(path).name: tar.extractfile(f"package/{path}") for path in paths}
        return {name: file.read() for name, file in members.items() if file}


def cached_archive(package: str) -> Path:
    """The archive of `name@version` in the cache, by `npm pack`, which knows the user's mirror."""
    cached = cache_dir() / f"{package.removeprefix('@').translate(_IN_FILE_NAME)}.tgz"
    if cached.exists():
        return cached
    command = ["npm", "pack", "--loglevel=error", "--pack-destination", str(cached.parent), package]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own command
    except FileNotFoundError:
        reason = f"missing, an archive of {package}: npm is not installed, which would fetch it"
        raise OptionError("wllama", reason) from None
    if result.returncode:
        raise FileError(f"{package}: npm pack failed: {as_line(result.stderr)[:300]}")
    return cached
