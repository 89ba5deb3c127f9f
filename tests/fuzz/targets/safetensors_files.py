"""safetensors files; the oracle is the reference implementation."""

from random import Random

import numpy as np
import safetensors
from thirteen.errors import ThirteenError
from thirteen.files.safetensors import SafetensorsFile

from ..mutators import mutate_json
from ..target import Target, refused, scratch_file

_TYPES = {"F16": "<f2", "F32": "<f4"}


def check(data: bytes) -> bool:
    path = scratch_file("model.safetensors", data)
    try:
        file = SafetensorsFile(path)
    except ThirteenError as error:
        return refused(error)
    expected = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    assert file.entries.keys() == expected.keys()
    for name, entry in file.entries.items():
        assert (entry.dtype, list(entry.shape)) == (expected[name]["dtype"], expected[name]["shape"])
        try:
            rows = file.rows(name)
        except ThirteenError as error:
            refused(error)
            continue
        assert rows.shape == entry.shape and rows.dtype == np.float32
        if entry.dtype in _TYPES:
            raw = np.frombuffer(expected[name]["data"], _TYPES[entry.dtype]).astype(np.float32)
            assert np.array_equal(rows.reshape(-1), raw, equal_nan=True)
    return True


def mutate(data: bytes, random: Random, words: tuple[str, ...]) -> bytes:
    """Change the header, and its length with it."""
    length = int.from_bytes(data[:8], "little")
    header = mutate_json(data[8 : 8 + length], random, words)
    return len(header).to_bytes(8, "little") + header + data[8 + length :] if header else b""


TARGET = Target(check, mutate=mutate)
