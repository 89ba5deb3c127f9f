"""Writes a static site that runs a model in the browser: the server's page, the app, wllama and the model.

The model is split into parts of 24 MiB, because hosts of static files limit the size of a file and because an
interrupted download resumes at the first missing part. The browser joins the parts. Each part is named by its
hash, so it can be cached forever.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256, sha384
from pathlib import Path
from typing import Any

from ..errors import FileError, OutputError
from ..files.atomic_write import write_file
from ..files.gguf.header import read_header
from ..files.hashing import file_sha256
from ..files.json_file import read_json
from ..files.output import check_folder
from ..files.progress import Progress, no_progress
from ..runtime.llama.gguf_checks import ARCHITECTURES, check_model, is_checked
from ..runtime.native.settings import LIBRARIES
from ..runtime.plan.candidates import holds_heads
from ..runtime.plan.memory import estimate_memory
from ..runtime.plan.options import EngineOptions, default_settings
from ..runtime.validation import check_integer
from .shared_modules import shared_modules
from .static_files import PAGE_FILES, policy_text

APP = Path(__file__).with_name("app")
PART_BYTES = 24 << 20
FILE_BYTES_MAX = (1 << 31) - 1  # wllama's seek offset is a signed 32-bit integer
_DESCRIPTION, _PARTS = "model.json", "parts"
_EMBEDDED_FILES = ("load.html", "load.css", "device_note.html", "sw.js")  # become parts of other files
_POLICY = {
    "script-src": "'self' 'wasm-unsafe-eval' blob:",
    "worker-src": "'self' blob:",
    "connect-src": "'self' blob:",
    "manifest-src": "'self'",
}


@dataclass(frozen=True, slots=True)
class Site:
    """Result of write_site().

    Attributes:
        folder: the folder that was written.
        files: number of files, including the parts.
        parts: number of parts of the model.
        nbytes: total size of the files.
        needed_bytes: memory that the model needs in the browser, estimated from its header.
    """

    folder: Path
    files: int
    parts: int
    nbytes: int
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class PageModel:
    """A model as the page shows and runs it.

    Attributes:
        path: a GGUF file.
        name: name shown on the page; by default the file name without its suffix.
        context: context length, capped at the length the model was trained for.
    """

    path: Path
    name: str | None = None
    context: int = 2048

    def describe(self) -> dict[str, Any]:
        """What the app reads about the model.

        Raises:
            FileError: the file is not a supported model, or too large for a browser.
            RequestError: the context length is not positive.
        """
        header = read_header(self.path)
        check_model(header)
        if not is_checked(header):
            raise FileError(
                f"{self.path}: a browser runs dense models of {', '.join(ARCHITECTURES)} with byte-level BPE"
            )
        if (nbytes := header.file_bytes) > FILE_BYTES_MAX:
            raise FileError(f"{self.path}: {nbytes} bytes; a browser loads at most {FILE_BYTES_MAX}")
        check_integer("context", self.context, 1)
        trained = int(header.metadata[f"{header.metadata['general.architecture']}.context_length"])
        context = min(self.context, trained)
        # In WebAssembly q8_0 is the fastest: it has SIMD kernels, and converting f16 has none.
        kv = "q8_0" if holds_heads(header, "q8_0") else "f16"
        # Without Python and the prefix cache of the native engine.
        options = EngineOptions(profile="phone", context=context, kv=kv, prefix_bytes=0, library=LIBRARIES[0])
        estimate = estimate_memory(header, default_settings(options))
        return {
            "name": self.name or self.path.stem,
            "sha256": file_sha256(self.path),
            "file_bytes": nbytes,
            "needed_bytes": estimate.total_bytes - estimate.program_bytes,
            "context": context,
            "kv": kv,
        }


def write_site(
    model: PageModel, folder: Path, wllama: dict[str, bytes], progress: Progress = no_progress
) -> Site:
    """Write a static site that runs a model in the browser.

    Args:
        model: the model.
        folder: a new or empty folder, or one that this function has written before.
        wllama: files of wllama by name; see wllama.wllama_files().
        progress: called with the bytes of the model written so far and in total.

    Raises:
        FileError: the file is not a supported model, or too large for a browser.
        RequestError: the context length is not positive.
        OutputError: the folder contains other files, or cannot be written.
    """
    description = model.describe()
    try:
        check_site_folder(folder)
        parts = list(_write_parts(model.path, folder, progress))
        files = _site_files(wllama, description | {"parts": parts})
        # By model.json a run that follows an interrupted one knows the folder, so it is the first.
        for path in sorted(files, key=lambda path: path != _DESCRIPTION):
            _write_file(folder / path, files[path])
        _delete_old_parts(folder, parts)
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: {error.strerror or error}") from None
    nbytes = description["file_bytes"] + sum(map(len, files.values()))
    return Site(folder, len(files) + len(parts), len(parts), nbytes, description["needed_bytes"])


def check_site_folder(folder: Path) -> None:
    """Raise OutputError if a folder cannot be written, or contains files that write_site() did not write."""
    check_folder(folder)
    written = _is_description(folder / _DESCRIPTION)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set[str]()
    # A run that was killed may leave the part file of its description.
    if not written and {name for name in names if not name.endswith(".part")} - {_PARTS}:
        raise OutputError(f"{folder}: contains files of something else; give a new folder")


def _is_description(file: Path) -> bool:
    """Whether the file is a description that write_site() wrote; other programs have a model.json too."""
    try:
        return {"sha256", "needed_bytes", "parts"} <= set(read_json(file))
    except FileError:
        return False


def _write_parts(model: Path, folder: Path, progress: Progress) -> Iterator[dict[str, object]]:
    """Write the parts of the model, and yield each part's description."""
    total, done = model.stat().st_size, 0
    with model.open("rb") as file:
        while content := file.read(PART_BYTES):
            digest = sha256(content).hexdigest()
            name = f"{_PARTS}/{digest[:16]}.bin"
            _write_file(folder / name, content)
            done += len(content)
            progress(done, total)
            yield {"name": name, "bytes": len(content), "sha256": digest}


def _site_files(wllama: dict[str, bytes], description: dict[str, object]) -> dict[str, bytes]:
    """Content of all files but the parts, by path; the app's client replaces that of the server's page."""
    page = {path: file.read_bytes() for path, file in PAGE_FILES.items()}
    app = {file.name: file.read_bytes() for file in sorted(APP.iterdir()) if file.name not in _EMBEDDED_FILES}
    adapted = {
        "index.html": _adapt_index(page["index.html"].decode()).encode(),
        "page.css": page["page.css"] + (APP / "load.css").read_bytes(),
    }
    engine = {f"wllama/{name}": content for name, content in wllama.items()}
    described = {_DESCRIPTION: json.dumps(description, indent=1).encode()}
    files = page | shared_modules() | app | adapted | engine | described
    return files | {"sw.js": _service_worker(files)}


def _adapt_index(page: str) -> str:
    """The server's page with a content security policy, the loading section and the wording for a device."""
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy_text(_POLICY)}">\n'
        '  <meta name="theme-color" content="#0b6b4b">\n'
        '  <link rel="manifest" href="manifest.webmanifest">\n  <title>'
    )
    replacements = {
        "<title>": head,
        '<script type="module" src="page.js">': '<script type="module" src="start.js">',
        "<main>\n": "<main>\n" + (APP / "load.html").read_text("utf-8") + "\n",
        "Questions are sent to this server only.": (APP / "device_note.html").read_text("utf-8").rstrip(),
        "This page needs JavaScript; the server's API does not.": "This page needs JavaScript.",
    }
    for old, new in replacements.items():
        assert page.count(old) == 1, f"index.html must contain {old!r} exactly once"
        page = page.replace(old, new)
    return page


def _service_worker(files: dict[str, bytes]) -> bytes:
    """The service worker with the hash of every file; it changes with any of them."""
    hashes = {
        path: f"sha384-{b64encode(sha384(content).digest()).decode()}" for path, content in files.items()
    }
    version = sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:16]
    constants = f"const VERSION = {json.dumps(version)};\nconst SHELL = {json.dumps(hashes, indent=1)};\n\n"
    return constants.encode() + (APP / "sw.js").read_bytes()


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)


def _delete_old_parts(folder: Path, parts: list[dict[str, object]]) -> None:
    """Delete the parts of an earlier model, which the site had until now."""
    names = {part["name"] for part in parts}
    for path in folder.glob(f"{_PARTS}/{'[0-9a-f]' * 16}.bin"):  # as _write_parts() names them
        if f"{_PARTS}/{path.name}" not in names:
            path.unlink()
