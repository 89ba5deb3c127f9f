"""Structured mutations of JSON texts and GGUF files; nothing for bytes that are not of the format."""

import json
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

from thirteen.errors import ThirteenError

from .gguf_mutations import RawFile, mutate

_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.0, 0.5, -0.0, 1e308, 1e-308, 2**31, 2**53 + 1, 2**64, 10**400),
    *(float("nan"), float("inf"), "", " ", "\0", "\n", "\x1b[31m", "é", "\ud800", "a" * 400, "1", "#", "a/b"),
    *([], {}, [[]], [None], {"": None}, {"a": {"a": []}}),
)
_ODD_NAMES = ("", "a", "\ud800", "\n", "a.b", "a/b~")
_DEPTHS = (2, 64, 65, 128, 500, *range(900, 1000, 7), 1500)
_NESTED = '"\\ue000"'  # stands for a deeply nested value until the text is written


def mutate_gguf(data: bytes, random: Random, words: tuple[str, ...] = ()) -> bytes:
    """Apply one to three mutations to a file that has fields and tensors."""
    try:
        file = RawFile.decode(data)
    except ThirteenError:
        return b""
    return mutate(file, random) if file.fields and file.tensors else b""


def mutate_json(data: bytes, random: Random, words: tuple[str, ...] = ()) -> bytes:
    """Apply one to three mutations: values replaced, removed, repeated, renamed, and nested deeply."""
    try:
        root = [json.loads(data)]
        for _ in range(random.randint(1, 3)):
            _mutate(root, random, words)
        text = json.dumps(root[0], ensure_ascii=random.random() < 0.5)
    except (ValueError, RecursionError):
        return b""
    depth = random.choice(_DEPTHS)
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ('{"items":', "}")))
    nested = f"{opening * depth}1{closing * depth}"
    return text.replace("\ue000", "\\ue000").replace(_NESTED, nested).encode("utf-8", "surrogatepass")


def _mutate(root: list[Any], random: Random, words: tuple[str, ...]) -> None:
    places = list(_places(root))
    container, key = random.choice(places)
    other, place = random.choice(places)
    value = random.choice((*_ODD_VALUES, *words, *["\ue000"] * 4))
    match random.randrange(4):
        case 0 if container is not root:
            del container[key]
        case 1 if isinstance(container[key], dict):
            container[key][random.choice((*_ODD_NAMES, *words))] = deepcopy(value)
        case 2:
            container[key] = random.choice(
                ([container[key]] * 3, {"a": container[key]}, deepcopy(other[place]))
            )
        case _:
            container[key] = deepcopy(value)


def _places(root: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each value, as its container and its key there."""
    containers: list[Any] = [root]
    while containers:
        container = containers.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            yield container, key
            if isinstance(value, dict | list):
                containers.append(value)
