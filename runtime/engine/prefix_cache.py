"""The prefix cache: keys and values of beginnings of prompts, so that each is computed once.

In memory it keeps the latest used within a number of bytes; in folders, if there are any, they outlast the
process. Keys and values belong to a model, an adapter, a type and a build: an engine has one cache, in which
the adapters are kept apart, and each such combination has a folder of its own. A file is named by the hash of
all its bytes and is read when a prompt begins as it does; one that is not what was written is dropped with a
warning.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp

import numpy as np
from numpy.typing import NDArray

LENGTH_MIN = 16  # tokens: a shorter beginning is not worth waiting for, or keeping

Blob = NDArray[np.uint8]
_log = logging.getLogger(__name__)
_HEADER_MAX = 1 << 24  # bytes of the line that tells the tokens


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common, from the first on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, yours) in pairs if mine != yours), min(len(one), len(other)))


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """What the cache has for a prompt.

    Attributes:
        length: the tokens that they have in common, from the first on.
        blob: keys and values of these, and perhaps of more.
    """

    length: int
    blob: Blob


@dataclass(slots=True, eq=False)
class _Entry:
    """The keys and values of some tokens under an adapter: in memory, in a file, or both."""

    adapter: str
    tokens: tuple[int, ...]
    blob: Blob | None
    file: Path | None

    def common(self, adapter: str, tokens: tuple[int, ...]) -> int:
        """How many tokens it has in common with others, from the first on; 0 if too few to be of use."""
        if self.adapter != adapter or self.tokens[:LENGTH_MIN] != tokens[:LENGTH_MIN]:
            return 0
        return common_length(self.tokens, tokens)


class PrefixCache:
    """Beginnings of prompts under one model, type of keys and values, and build.

    Attributes:
        nbytes: of what is in memory.
    """

    def __init__(self, bound: int, folders: Mapping[str, Path] | None = None) -> None:
        """Begin with what is in the folders.

        Args:
            bound: the most bytes of memory, and as many of each folder.
            folders: by adapter; where its entries outlast the process. They are made when there is something
                to put there.
        """
        self._bound, self._folders = bound, folders or {}
        self.nbytes = 0
        self._entries: list[_Entry] = []  # the latest used last
        for adapter, folder in self._folders.items():
            self._entries += [_Entry(adapter, tokens, None, file) for tokens, file in _listed(folder)]

    def find(self, adapter: str, prompt: tuple[int, ...]) -> PrefixMatch | None:
        """The longest beginning of a prompt that is kept, if it is long enough to be of use.

        The prompt's last token is never part of it, since its logits are wanted.
        """
        while self._entries:
            length, best = max(
                ((entry.common(adapter, prompt[:-1]), entry) for entry in self._entries),
                key=lambda found: found[0],
            )
            if length < LENGTH_MIN:
                break
            self._entries.remove(best)
            if (blob := self._blob(best)) is not None:
                self._entries.append(best)
                self._shrink()
                return PrefixMatch(length, blob)
        return None

    def takes(self, nbytes: int) -> bool:
        """Whether keys and values of this size can be kept at all."""
        return nbytes <= self._bound

    def keep(self, adapter: str, prompt: tuple[int, ...], blob: Blob) -> None:
        """Take in the keys and values of a prompt, instead of those of its beginnings."""
        if not self.takes(blob.nbytes):
            return
        for entry in list(self._entries):
            if entry.adapter == adapter and entry.tokens == prompt[: len(entry.tokens)]:
                self._forget(entry)
                self._entries.remove(entry)
        self._entries.append(_Entry(adapter, prompt, blob, None))
        self.nbytes += blob.nbytes
        self._shrink()

    def forget(self, adapter: str, but: tuple[int, ...]) -> None:
        """Forget all that is in memory, but for one beginning as far as it is there; files stay."""
        here = [entry for entry in self._entries if entry.blob is not None]
        best = max(here, key=lambda entry: entry.common(adapter, but), default=None)
        length = best.common(adapter, but) if best else 0
        kept = _Entry(adapter, but[:length], best.blob, None) if best and length else None
        for entry in here:
            self._forget(entry)
        self._entries = [entry for entry in self._entries if entry.file is not None]
        if kept is not None and kept.blob is not None:
            self._entries.append(kept)
            self.nbytes += kept.blob.nbytes

    def flush(self) -> None:
        """Write to the folders what is in memory only, and take out of them what was used longest ago.

        A folder that cannot be written costs a warning: the answers do not depend on it.
        """
        for adapter, folder in self._folders.items():
            fresh = [e for e in self._entries if e.adapter == adapter and e.blob is not None and not e.file]
            try:
                for entry in fresh:
                    entry.file = _write(folder, entry)
                if fresh:
                    _trim(folder, self._bound)
            except OSError as failure:
                _log.warning("prefix cache %s: %s", folder, failure.strerror or failure)

    def _blob(self, entry: _Entry) -> Blob | None:
        if entry.blob is None and entry.file is not None:
            entry.blob = _read(entry.file)
            self.nbytes += 0 if entry.blob is None else entry.blob.nbytes
        return entry.blob

    def _shrink(self) -> None:
        """Forget what was used longest ago, until the rest is within the bound; files stay."""
        for entry in list(self._entries):
            if self.nbytes <= self._bound:
                break
            self._forget(entry)
            if entry.file is None:
                self._entries.remove(entry)

    def _forget(self, entry: _Entry) -> None:
        if entry.blob is not None:
            self.nbytes -= entry.blob.nbytes
            entry.blob = None


def _listed(folder: Path) -> Iterator[tuple[tuple[int, ...], Path]]:
    """The tokens and the path of each file, the latest used last."""
    for path in sorted(_files(folder), key=_used_at):
        tokens: object = None
        with suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
            tokens = json.loads(file.readline(_HEADER_MAX))
        if isinstance(tokens, list) and all(type(token) is int for token in tokens):
            yield tuple(tokens), path
        else:
            _drop(path)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.prefix") if path.is_file()]


def _used_at(path: Path) -> float:
    with suppress(FileNotFoundError):  # another engine took it out just now
        return path.stat().st_mtime
    return 0.0


def _read(path: Path) -> Blob | None:
    """The keys and values in a file; None if it is gone, or is not what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # this engine or another took it out, to keep the folder within its bound
        return None
    except OSError:
        data = b""
    with suppress(OSError):  # a folder can be for reading only
        os.utime(path)
    start = data.find(b"\n") + 1
    if not start or sha256(data).hexdigest() != path.stem:
        _drop(path)
        return None
    return np.frombuffer(data, np.uint8, offset=start)


def _drop(path: Path) -> None:
    _log.warning("prefix cache: %s is not what was written there: dropped", path)
    with suppress(OSError):
        path.unlink()


def _write(folder: Path, entry: _Entry) -> Path:
    assert entry.blob is not None, "there is something to write"
    header, data = json.dumps(entry.tokens).encode() + b"\n", entry.blob.data
    digest = sha256(header)
    digest.update(data)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{digest.hexdigest()}.prefix"
    descriptor, name = mkstemp(dir=folder)  # for its owner only: prompts are private
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header)
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    return path


def _trim(folder: Path, bound: int) -> None:
    """Take the files used longest ago out of a folder, until the rest is within a number of bytes."""
    files = sorted(((path.stat(), path) for path in _files(folder)), key=lambda found: found[0].st_mtime)
    total = sum(stat.st_size for stat, _ in files)
    for stat, path in files:
        if total <= bound:
            break
        path.unlink(missing_ok=True)
        total -= stat.st_size
