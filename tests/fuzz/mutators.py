"""Structured mutations of JSON texts and GGUF files, drawn with the fuzzer's random numbers.

They return nothing for bytes that are not of the format.
"""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings

from .gguf_mutations import RawFile, mutated_files

_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.0, 0.5, -0.0, 1e308, 1e-308, 2**31, 2**53 + 1, 2**64, 10**400),
    *(float("nan"), float("inf"), "", " ", "\0", "\n", "\x1b[31m", "é", "\ud800", "a" * 400, "1", "#", "a/b"),
    *([], {}, [[]], [None], {"": None}, {"a": {"a": []}}),
)
_ODD_NAMES = ("", "a", "\ud800", "\n", "a.b", "a/b~")
_DEPTHS = (2, 64, 65, 128, 500, *range(900, 1000, 7), 1500)
_NESTED = '"\\ue000"'  # stands for a deeply nested value until the text is written
_SOURCE_BYTES = 1 << 12  # of random numbers, more than three mutations of a GGUF file draw


def mutate_gguf(data: bytes, random: Random, words: Sequence[str] = ()) -> bytes:
    """Apply one to three mutations to a file that has fields and tensors."""
    try:
        file = RawFile.decode(data)
    except ValueError:
        return b""
    if not (file.fields and file.tensors):
        return b""
    mutated: list[bytes] = []

    @settings(database=None, suppress_health_check=list(HealthCheck))
    @given(mutated_files([file]))
    def keep(value: bytes) -> None:
        mutated.append(value)

    keep.hypothesis.fuzz_one_input(random.randbytes(_SOURCE_BYTES))  # type: ignore[attr-defined]
    return mutated[-1] if mutated else b""


def mutate_json(data: bytes, random: Random, words: Sequence[str] = ()) -> bytes:
    """Apply one to three mutations: values exchanged, removed, repeated, renamed, and nested deeply."""
    try:
        root = [json.loads(data)]
        for _ in range(random.randint(1, 3)):
            _mutate(root, random, words)
        text = json.dumps(root[0], ensure_ascii=random.random() < 0.5)
    except (ValueError, RecursionError):
        return b""
    text = text.replace("\ue000", "\\ue000").replace(_NESTED, _nested(random))
    return text.encode("utf-8", "surrogatepass")


def _mutate(root: list[Any], random: Random, words: Sequence[str]) -> None:
    places = list(_places(root))
    container, key = random.choice(places)
    match random.randrange(5):
        case 0:
            container[key] = _value(random, words)
        case 1:
            other, place = random.choice(places)
            container[key] = deepcopy(other[place])
        case 2 if container is not root:
            del container[key]
        case 3 if isinstance(container[key], dict):
            container[key][random.choice((*_ODD_NAMES, *words))] = _value(random, words)
        case 3 if isinstance(container[key], list):
            container[key].append(_value(random, words))
        case _:
            container[key] = random.choice(([container[key]], {"a": container[key]}, [container[key]] * 3))


def _places(root: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each value, as its container and its key there."""
    containers: list[Any] = [root]
    while containers:
        container = containers.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            yield container, key
            if isinstance(value, dict | list):
                containers.append(value)


def _value(random: Random, words: Sequence[str]) -> Any:
    if words and random.random() < 0.4:
        return random.choice(words)
    return "\ue000" if random.random() < 0.1 else deepcopy(random.choice(_ODD_VALUES))


def _nested(random: Random) -> str:
    depth = random.choice(_DEPTHS)
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ('{"items":', "}")))
    return f"{opening * depth}1{closing * depth}"
