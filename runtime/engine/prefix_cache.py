"""Prefix cache: KV cache of prompt prefixes, so that each is computed once.

In memory it holds the most recently used entries within a number of bytes; in folders, if there are any, they
outlive the process. A KV cache belongs to a model, an adapter, a KV type and a build. An engine has one
prefix cache, which separates the adapters, and each such combination has a folder of its own. A file is named
by the hash of its bytes and is read when a prompt starts with its tokens. A file whose bytes do not match its
name is deleted with a warning.

The number of cached tokens and the time to the first token tell a client what was asked before. Clients that
must not learn that of each other have namespaces. They share only the tokens with which every prompt begins.
"""

import json
import logging
import operator
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import OutputError, one_line
from ...files.atomic_write import atomic_write
from ...files.hashing import file_sha256
from ...files.private_folder import sharing_problem
from ..profile import Profile
from ..request import BASE, PrefixKey

PREFIX_TOKENS_MIN = 16  # a shorter prefix is not worth waiting for, or caching

KvState = NDArray[np.uint8]  # serialized KV cache of one sequence, from Context.save()
_log = logging.getLogger(__name__)
_HEADER_MAX = 1 << 24  # bytes of a file's first line: a JSON list of the namespace and the tokens
_FORMAT = 2  # of the files


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences share, counted from the first."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))


def prefix_folders(
    parent: Path, model: Path, adapters: Mapping[str, Path], profile: Profile
) -> dict[str, Path]:
    """Return a folder for each adapter and for none, named by everything that the KV cache depends on.

    The number of slots is part of the name: llama.cpp restores a state only in a context with the same number
    of slots.
    """
    # Standard attention transposes the values.
    layout = (profile.kv, profile.slots, profile.flash_attention, profile.micro_batch)
    machine = (platform.machine(), profile.gpu_layers)
    build = (_FORMAT, version("llama-cpp-python"), *machine, *layout, file_sha256(model))
    hashes = {BASE: ""} | {name: file_sha256(path) for name, path in adapters.items()}
    return {
        name: parent / sha256(json.dumps((*build, adapter)).encode()).hexdigest()
        for name, adapter in hashes.items()
    }


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """The longest cached prefix of a prompt.

    Attributes:
        length: tokens of the prefix.
        state: KV cache of these tokens, and perhaps of more.
    """

    length: int
    state: KvState


@dataclass(slots=True, eq=False)
class _CachedPrefix:
    """KV cache of some tokens under a key: in memory, in a file, or both."""

    key: PrefixKey
    tokens: tuple[int, ...]
    state: KvState | None
    file: Path | None

    def match(self, key: PrefixKey, tokens: tuple[int, ...], shared: tuple[int, ...] = ()) -> int:
        """Return how many tokens of a prompt this entry covers; 0 if too few to be useful.

        Of another namespace's entry only the tokens in `shared` count.
        """
        if self.key.adapter != key.adapter or self.tokens[:PREFIX_TOKENS_MIN] != tokens[:PREFIX_TOKENS_MIN]:
            return 0
        length = common_length(self.tokens, tokens)
        return length if self.key == key else min(length, common_length(shared, tokens))


class PrefixCache:
    """Prompt prefixes of one model, KV type and build.

    Attributes:
        nbytes: size of the entries in memory.
        shared: tokens with which every prompt of the chat template begins; all namespaces share them.
    """

    def __init__(self, capacity: int, folders: Mapping[str, Path] | None = None) -> None:
        """Start with the entries in the folders.

        Args:
            capacity: maximum bytes in memory, and in each folder.
            folders: folder of each adapter, for entries that outlive the process. They are created when first
                needed.
        """
        self._capacity = capacity
        self._folders = {adapter: path for adapter, path in (folders or {}).items() if _is_private(path)}
        self.nbytes = 0
        self.shared: tuple[int, ...] = ()
        self._entries: list[_CachedPrefix] = []  # most recently used last
        for adapter, folder in self._folders.items():
            found = _list(folder, capacity + _HEADER_MAX)
            self._entries += [
                _CachedPrefix(PrefixKey(adapter, namespace), tokens, None, file)
                for namespace, tokens, file in found
            ]

    def find(self, key: PrefixKey, prompt: tuple[int, ...]) -> PrefixMatch | None:
        """Find the longest useful prefix of a prompt.

        It never includes the prompt's last token, whose logits are needed.
        """
        while self._entries:
            length, best = max(
                ((entry.match(key, prompt[:-1], self.shared), entry) for entry in self._entries),
                key=operator.itemgetter(0),
            )
            if length < PREFIX_TOKENS_MIN:
                break
            self._entries.remove(best)
            if (state := self._load(best)) is not None:
                self._entries.append(best)
                self._evict()
                return PrefixMatch(length, state)
        return None

    def fits(self, nbytes: int) -> bool:
        """Whether a state of this size can be cached at all."""
        return nbytes <= self._capacity

    def add(self, key: PrefixKey, prompt: tuple[int, ...], state: KvState) -> None:
        """Add the KV cache of a prompt, which replaces those of its prefixes."""
        if not self.fits(state.nbytes):
            return
        for entry in list(self._entries):
            if entry.key == key and entry.tokens == prompt[: len(entry.tokens)]:
                self._unload(entry)
                self._entries.remove(entry)
        self._entries.append(_CachedPrefix(key, prompt, state, None))
        self.nbytes += state.nbytes
        self._evict()

    def clear(self, key: PrefixKey, keep: tuple[int, ...]) -> None:
        """Remove everything from memory but the prefix `keep`, as far as it is there; files stay."""
        loaded = [entry for entry in self._entries if entry.state is not None]
        best = max(loaded, key=lambda entry: entry.match(key, keep), default=None)
        length = best.match(key, keep) if best else 0
        kept = _CachedPrefix(key, keep[:length], best.state, None) if best and length else None
        for entry in loaded:
            self._unload(entry)
        self._entries = [entry for entry in self._entries if entry.file is not None]
        if kept is not None and kept.state is not None:
            self._entries.append(kept)
            self.nbytes += kept.state.nbytes

    def flush(self) -> None:
        """Write new entries to their folders, and delete the least recently used files beyond the capacity.

        A folder that cannot be written only costs a warning: no answer depends on it.
        """
        for adapter, folder in self._folders.items():
            entries = (entry for entry in self._entries if entry.key.adapter == adapter)
            fresh = [entry for entry in entries if entry.state is not None and not entry.file]
            try:
                if fresh:
                    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if fresh and _is_private(folder):
                    for entry in fresh:
                        entry.file = _write(folder, entry)
                    _trim(folder, self._capacity)
            except (OSError, OutputError) as failure:
                _log.warning("prefix cache %s: %s", folder, failure)

    def _load(self, entry: _CachedPrefix) -> KvState | None:
        if entry.state is None and entry.file is not None:
            entry.state = _read(entry.file, self._capacity + _HEADER_MAX)
            self.nbytes += 0 if entry.state is None else entry.state.nbytes
        return entry.state

    def _evict(self) -> None:
        """Remove the least recently used entries from memory until the rest fits; files stay."""
        for entry in list(self._entries):
            if self.nbytes <= self._capacity:
                break
            self._unload(entry)
            if entry.file is None:
                self._entries.remove(entry)

    def _unload(self, entry: _CachedPrefix) -> None:
        if entry.state is not None:
            self.nbytes -= entry.state.nbytes
            entry.state = None


def _is_private(folder: Path) -> bool:
    """Whether only this user and root can have written a folder's files; if not, warn.

    llama.cpp takes a KV cache as it is: whoever can write one decides the answers.
    """
    try:
        problem = sharing_problem(folder)
    except OSError as failure:
        problem = failure.strerror
    if problem:
        _log.warning("prefix cache %s: not used: %s", folder, problem)
    return not problem


def _list(folder: Path, max_bytes: int) -> Iterator[tuple[str, tuple[int, ...], Path]]:
    """Yield namespace, tokens and path of each file of at most `max_bytes`, most recently used last."""
    for path, size in _files(folder):
        if size > max_bytes:  # of an engine with a larger cache
            continue
        header: Any = None
        try:
            with suppress(ValueError, RecursionError), path.open("rb") as file:
                header = json.loads(file.readline(_HEADER_MAX))
        except OSError:  # such as too many open files, which is no damage
            continue
        match header:
            case [str(namespace), [*tokens]] if all(type(token) is int for token in tokens):
                yield namespace, tuple(tokens), path
            case _:
                _delete(path)


def _files(folder: Path) -> list[tuple[Path, int]]:
    """The files of a folder with their sizes in bytes, most recently used last."""
    found = []
    for path in folder.glob("*.prefix"):
        with suppress(OSError):  # such as that another engine has just deleted it
            stat = path.stat()
            if S_ISREG(stat.st_mode):
                found.append((stat.st_mtime, path, stat.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def _read(path: Path, max_bytes: int) -> KvState | None:
    """Read the KV cache in a file; None if that fails, or the file is damaged or larger than `max_bytes`."""
    try:
        with path.open("rb") as file:
            size = min(os.fstat(file.fileno()).st_size, max_bytes)
            data = file.read(size + 1)  # which allocates all that is asked for
    except FileNotFoundError:  # this engine or another deleted it, to keep the folder within its capacity
        return None
    except (OSError, MemoryError) as failure:
        _log.warning("prefix cache: %s cannot be read: %s", path, one_line(failure))
        return None
    with suppress(OSError):  # the folder may be read-only
        os.utime(path)
    start = data.find(b"\n") + 1
    if not start or sha256(data).hexdigest() != path.stem:
        _delete(path)
        return None
    return np.frombuffer(data, np.uint8, offset=start)


def _delete(path: Path) -> None:
    _log.warning("prefix cache: %s is damaged: deleted", path)
    with suppress(OSError):
        path.unlink()


def _write(folder: Path, entry: _CachedPrefix) -> Path:
    assert entry.state is not None, "only entries in memory are written"
    header = json.dumps([entry.key.namespace, entry.tokens]).encode() + b"\n"
    data = entry.state.data
    digest = sha256(header)
    digest.update(data)
    path = folder / f"{digest.hexdigest()}.prefix"
    with atomic_write(path, mode=0o600, sync=False) as file:  # for its owner only: prompts are private
        file.write(header)
        file.write(data)
    return path


def _trim(folder: Path, capacity: int) -> None:
    """Delete the least recently used files of a folder until the rest fits."""
    files = _files(folder)
    total = sum(size for _, size in files)
    for path, size in files:
        if total <= capacity:
            break
        path.unlink(missing_ok=True)
        total -= size
