"""The static folder: the server's page with a client that runs the model, the model in parts, a manifest.

A part is a piece of the file as it is, of at most 24 MiB, so that every host of static files takes it and a
broken download goes on where it was; the browser puts them together. Their names have their hashes, so that
they can be kept for ever.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256, sha384
from pathlib import Path

from ..errors import ModelFileError, OutputError
from ..files.gguf_header import read_header
from ..files.hashing import file_sha256
from ..files.progress import Progress, no_progress
from ..runtime.engine.memory_estimate import estimate_memory
from ..runtime.llama.gguf_checks import check_model
from ..runtime.profile import PROFILES
from ..runtime.request import check_integer
from ..runtime.server.static_files import PAGE_FILES as PAGE

APP = Path(__file__).with_name("app")
PART_BYTES = 24 << 20
FILE_BYTES_MAX = (1 << 31) - 1  # wllama's seek takes no more
_NOT_SENT = ("load.html", "load.css", "sw.js")  # parts of other files
CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self' 'wasm-unsafe-eval' blob:",
    "worker-src": "'self' blob:",
    "connect-src": "'self' blob:",
    "style-src": "'self'",
    "img-src": "'self'",
    "manifest-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


@dataclass(frozen=True, slots=True)
class Site:
    """What was written.

    Attributes:
        folder: where.
        files: how many, and how many of them are parts of the model.
        parts: likewise.
        nbytes: of all of them.
        needed_bytes: of memory in the browser, by the model's header.
    """

    folder: Path
    files: int
    parts: int
    nbytes: int
    needed_bytes: int


def write_site(  # noqa: PLR0913 - all that is said of a page
    model: Path,
    folder: Path,
    wllama: dict[str, bytes],
    *,
    name: str | None = None,
    context: int = 2048,
    progress: Progress = no_progress,
) -> Site:
    """Write the page of a model.

    Args:
        model: a GGUF.
        folder: a new or empty one, or one that an earlier call wrote.
        wllama: the engine's files, see wllama.py.
        name: of the model, for its reader; by default that of its file.
        context: tokens of question and answer, as far as the model was trained for so many.
        progress: called with bytes done and in all.

    Raises:
        ModelFileError: it is no model that this project runs, or too large for a browser.
        RequestError: the context is out of bounds.
        OutputError: the folder holds something else, or cannot be written.
    """
    header = read_header(model)
    check_model(header)
    if header.file_bytes > FILE_BYTES_MAX:
        raise ModelFileError(f"{model}: {header.file_bytes} bytes; a browser takes at most {FILE_BYTES_MAX}")
    trained = int(header.metadata[f"{header.metadata['general.architecture']}.context_length"])
    check_integer("context", context, 1)
    context = min(context, trained)
    wanted = estimate_memory(header, replace(PROFILES["phone"], context=context, kv="f16", prefix_bytes=0))
    needed = wanted.total_bytes - wanted.program_bytes
    try:
        _check_folder(folder)
        parts = list(_write_parts(model, folder, progress))
        described = {
            "name": name or model.stem,
            "sha256": file_sha256(model),
            "file_bytes": header.file_bytes,
            "needed_bytes": needed,
            "context": context,
            "parts": parts,
        }
        files = _shell(wllama) | {"model.json": json.dumps(described, indent=1).encode()}
        files |= {"sw.js": _worker(files)}
        for path, content in files.items():
            _write(folder / path, content)
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: {error.strerror or error}") from None
    nbytes = header.file_bytes + sum(map(len, files.values()))
    return Site(folder, len(files) + len(parts), len(parts), nbytes, needed)


def _check_folder(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / "model.json").is_file():
        raise OutputError(f"{folder}: holds files that are no page of a model; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)


def _write_parts(model: Path, folder: Path, progress: Progress) -> Iterator[dict[str, object]]:
    """Write the parts anew, those of an earlier model gone."""
    for old in folder.glob("parts/*.bin"):
        old.unlink()
    total, done = model.stat().st_size, 0
    with model.open("rb") as file:
        while content := file.read(PART_BYTES):
            digest = sha256(content).hexdigest()
            name = f"parts/{digest[:16]}.bin"
            _write(folder / name, content)
            done += len(content)
            progress(done, total)
            yield {"name": name, "bytes": len(content), "sha256": digest}


def _shell(wllama: dict[str, bytes]) -> dict[str, bytes]:
    """All but the model: the page's files, ours in the place of the server's client, wllama's."""
    page = {file.name: file.read_bytes() for file in PAGE}
    app = {file.name: file.read_bytes() for file in sorted(APP.iterdir()) if file.name not in _NOT_SENT}
    changed = {
        "index.html": _index(page["index.html"].decode()).encode(),
        "page.css": page["page.css"] + (APP / "load.css").read_bytes(),
        "manifest.webmanifest": _manifest(),
    }
    return page | app | changed | {f"wllama/{name}": content for name, content in wllama.items()}


def _index(page: str) -> str:
    """The server's page with what comes before it, and with what is true here."""
    policy = "; ".join(f"{kind} {source}" for kind, source in CONTENT_SECURITY_POLICY.items())
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '  <meta name="theme-color" content="#0b6b4b">\n'
        '  <link rel="manifest" href="manifest.webmanifest">\n  <title>'
    )
    changes = {
        "<title>": head,
        '<script type="module" src="page.js">': '<script type="module" src="start.js">',
        "<main>\n": "<main>\n" + (APP / "load.html").read_text("utf-8") + "\n",
        "Questions go to this server only.": 'Questions stay on this device. <span id="stored"></span>',
        "This page needs JavaScript; the server's API does not.": "This page needs JavaScript.",
    }
    for old, new in changes.items():
        assert page.count(old) == 1, f"the page has {old!r} once"
        page = page.replace(old, new)
    return page


def _manifest() -> bytes:
    manifest = {
        "name": "Thirteen",
        "short_name": "Thirteen",
        "description": "Answers math questions on this device, without a network.",
        "start_url": "./",
        "display": "standalone",
        "background_color": "#f5f6f4",
        "theme_color": "#0b6b4b",
        "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }
    return json.dumps(manifest, indent=1).encode()


def _worker(files: dict[str, bytes]) -> bytes:
    """The service worker, which knows every file by its hash; so it changes when one of them does."""
    hashes = {
        path: f"sha384-{b64encode(sha384(content).digest()).decode()}" for path, content in files.items()
    }
    version = sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:16]
    known = f"const VERSION = {json.dumps(version)};\nconst SHELL = {json.dumps(hashes, indent=1)};\n\n"
    return known.encode() + (APP / "sw.js").read_bytes()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
