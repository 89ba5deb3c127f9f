"""ik_llama.cpp: one version with known struct layouts is used, and no other."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from thirteen.errors import FileError
from thirteen.runtime.native import ik_llama_library, libraries
from thirteen.runtime.native.ik_llama_library import IkLlamaLibrary, installed
from thirteen.runtime.native.settings import library_version
from thirteen.runtime.plan.options import EngineOptions, default_settings

from .test_struct_layouts import read_as, with_field

without_it = pytest.mark.skipif(not installed(), reason="ik-llama-cpp-python is not installed")


@pytest.fixture
def api() -> Any:
    from ik_llama_cpp import _ctypes_api

    return _ctypes_api


@without_it
@pytest.mark.parametrize(("struct", "fields"), [("llama_model", 40), ("llama_context", 46)])
def test_a_field_more_is_noticed(api: Any, struct: str, fields: int, monkeypatch: pytest.MonkeyPatch) -> None:
    native = getattr(api, f"{struct}_default_params")()
    for index in range(fields):
        other: type[ctypes.Structure] = with_field(type(native), index)
        monkeypatch.setattr(api, f"{struct}_default_params", lambda other=other: read_as(other, native))
        with pytest.raises(FileError, match=rf"ik-llama-cpp-python has other .*: {struct}_params\.\w+ is "):
            IkLlamaLibrary()


@without_it
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ik_llama_library, "KNOWN_VERSION", "0.1.4")
    with pytest.raises(FileError, match=r"0\.1\.5 is not known here: pip install .*==0\.1\.4"):
        IkLlamaLibrary()


@pytest.mark.parametrize("use", [IkLlamaLibrary, lambda: default_settings(EngineOptions(library="ik"))])
def test_without_the_package_the_error_says_what_to_install(
    use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings with it were a traceback, as something asked for the version of the package."""
    monkeypatch.setattr(ik_llama_library, "PACKAGE", "no-such-package")
    with pytest.raises(FileError, match=r"ik_llama\.cpp is not installed: pip install no-such-package=="):
        use()


def test_threads_that_load_it_at_once_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages went to the last that was loaded; its callback was freed with the first model's end."""

    def load() -> object:
        sleep(0.05)
        return object()

    monkeypatch.setattr(ik_llama_library, "IkLlamaLibrary", load)
    monkeypatch.setattr(libraries, "_ik_llama_library", cache(libraries._ik_llama_library.__wrapped__))
    with ThreadPoolExecutor() as threads:
        assert len(set(threads.map(libraries.find_library, ["ik"] * 4))) == 1


@without_it
def test_another_build_of_the_version_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements and proofs of the wheel held for it."""
    usual, build = library_version("ik"), tmp_path / "libllama.so"
    monkeypatch.setenv("IK_LLAMA_CPP_LIB_PATH", str(build))
    assert library_version("ik") == usual
    found = set()
    for size in (1, 2):
        build.write_bytes(b"x" * size)
        found.add(library_version("ik"))
    assert len(found) == 2 and all(one.startswith(f"{usual} from {build}") for one in found)
    assert library_version("llama.cpp") == version("llama-cpp-python")
