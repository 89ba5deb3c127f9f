"""Files of the prefix cache: a state is found under the name that it must have, and under no other."""

import json
from hashlib import sha256
from random import Random

from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN, PrefixCache
from thirteen.runtime.request import PrefixKey

from ..json_mutator import mutate_json
from ..target import Target, scratch_folder

_CAPACITY = 1 << 16
_FOLDER = scratch_folder("prefixes")


def check(data: bytes) -> bool:
    digest = sha256(data).hexdigest()
    for name in (digest, "0" * 64):
        (_FOLDER / f"{name}.prefix").write_bytes(data)
    cache = PrefixCache(_CAPACITY, {"base": _FOLDER})
    header, newline, state = data.partition(b"\n")
    namespace, tokens = _header(header)
    found = cache.find(PrefixKey("base", namespace), (*tokens, 0))
    assert bool(found) == bool(newline and len(tokens) >= PREFIX_TOKENS_MIN)
    if found:
        assert found.length == len(tokens) and found.state.tobytes() == state
    for path in _FOLDER.iterdir():
        path.unlink()
    return found is not None


def _header(header: bytes) -> tuple[str, tuple[int, ...]]:
    try:
        namespace, tokens = json.loads(header)
    except (ValueError, TypeError, RecursionError):
        return "", ()
    valid = isinstance(tokens, list) and all(type(token) is int for token in tokens)
    return (namespace, tuple(tokens)) if valid and isinstance(namespace, str) else ("", ())


def mutate(data: bytes, random: Random) -> bytes:
    """Change the namespace and the tokens, and leave the state."""
    header, newline, state = data.partition(b"\n")
    return mutate_json(header, random) + newline + state


TARGET = Target(check, mutate=mutate)
