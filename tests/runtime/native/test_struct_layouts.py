"""The self-test of struct layouts: it accepts the library that is installed, and notices others."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from thirteen.errors import FileError
from thirteen.runtime.llama.model import Model
from thirteen.runtime.native import struct_layouts
from thirteen.runtime.native.bindings import llama_cpp
from thirteen.runtime.native.struct_layouts import check_struct_layouts


def with_field(struct: type[ctypes.Structure], index: int) -> type[ctypes.Structure]:
    """The struct of another version, with one more field before the one at `index`."""
    fields = list(struct._fields_)
    fields.insert(index, ("new_in_this_version", ctypes.c_uint64))
    return type(struct.__name__, (ctypes.Structure,), {"_fields_": fields})


def read_as(struct: type[ctypes.Structure], native: ctypes.Structure) -> ctypes.Structure:
    """The bytes that the library returned, read with another layout."""
    room = bytes(native) + bytes(max(0, ctypes.sizeof(struct) - ctypes.sizeof(native)))
    return struct.from_buffer_copy(room)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    check_struct_layouts.cache_clear()
    yield
    check_struct_layouts.cache_clear()


def test_the_installed_library_has_the_known_layouts() -> None:
    check_struct_layouts()


@pytest.mark.parametrize(
    ("struct", "fields"),
    [("llama_model", 14), ("llama_context", 30)],  # those after `no_host` are not used here
)
def test_a_field_more_is_noticed(struct: str, fields: int, monkeypatch: pytest.MonkeyPatch) -> None:
    native = getattr(llama_cpp, f"{struct}_default_params")()
    for index in range(fields):
        other = with_field(type(native), index)
        monkeypatch.setattr(llama_cpp, f"{struct}_default_params", lambda other=other: read_as(other, native))
        with pytest.raises(FileError, match=rf"layouts .*: {struct}_params\.\w+ is .*; install llama-"):
            check_struct_layouts()


def test_no_model_is_loaded_with_other_layouts(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(struct_layouts, "_CONTEXT_DEFAULTS", {"n_batch": 1})
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", pytest.fail)
    with pytest.raises(FileError, match=r"n_batch is 2048 by default, not 1; install llama-cpp-python"):
        Model(tiny)
