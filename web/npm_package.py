"""Writes the JavaScript package: the modules of the site, wllama, and what a package has besides."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..errors import OutputError
from ..files.atomic_write import atomic_write
from .shared_modules import shared_modules

_FOLDER = Path(__file__).with_name("npm")
_MANIFEST = "package.json"


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """Result of write_package().

    Attributes:
        folder: the folder that was written.
        name: name of the package.
        version: version of the package, which is that of this project.
        files: number of files.
        nbytes: total size of the files.
    """

    folder: Path
    name: str
    version: str
    files: int
    nbytes: int


def write_package(folder: Path, wllama: dict[str, bytes]) -> NpmPackage:
    """Write the JavaScript package.

    Args:
        folder: a new or empty folder, or one that this function has written before.
        wllama: files of wllama by name; see wllama.wllama_files().

    Raises:
        OutputError: the folder contains other files, or cannot be written.
    """
    own = {file.name: file.read_bytes() for file in sorted(_FOLDER.iterdir())}
    manifest = json.loads(own[_MANIFEST]) | {"version": version("thirteen")}
    files = shared_modules() | own | {f"wllama/{name}": content for name, content in wllama.items()}
    files[_MANIFEST] = json.dumps(manifest, indent=2).encode() + b"\n"
    try:
        _check_folder(folder, manifest["name"])
        # By the manifest a run that follows an interrupted one knows the folder, so it is the first.
        for name in sorted(files, key=lambda name: name != _MANIFEST):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write(files[name])
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: {error.strerror or error}") from None
    nbytes = sum(map(len, files.values()))
    return NpmPackage(folder, manifest["name"], manifest["version"], len(files), nbytes)


def _check_folder(folder: Path, name: str) -> None:
    """Raise OutputError if a folder contains anything but a package that was written here."""
    manifest = folder / _MANIFEST
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        written = json.loads(manifest.read_bytes())["name"] == name
    except (OSError, ValueError, KeyError, TypeError):
        written = False
    if not written:
        raise OutputError(f"{folder}: contains files of something else; give a new folder")
