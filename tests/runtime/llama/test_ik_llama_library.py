"""ik_llama.cpp: one version with known struct layouts is used, and no other."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
from thirteen.errors import FileError
from thirteen.runtime.llama import ik_llama_library, model
from thirteen.runtime.llama.ik_llama_library import IkLlamaLibrary, installed

without_it = pytest.mark.skipif(not installed(), reason="ik-llama-cpp-python is not installed")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KNOWN_VERSION", "0.1.4", r"ik-llama-cpp-python: 0\.1\.5; pip install ik-llama-cpp-python==0\.1\.4"),
        ("PACKAGE", "no-such-package", "no-such-package: not installed; pip install no-such-package=="),
        (
            "read_cpuinfo",
            lambda: ("", {"sse2"}),
            "ik-llama-cpp-python needs AVX2, which this processor lacks",
        ),
    ],
)
@without_it
def test_another_version_or_processor_is_refused_before_it_is_loaded(
    name: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ik_llama_library, name, value)
    with pytest.raises(FileError, match=message):
        IkLlamaLibrary()


def test_threads_that_load_it_at_once_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages went to the last that was loaded; its callback was freed with the first model's end."""

    def load() -> object:
        sleep(0.05)
        return object()

    monkeypatch.setattr(ik_llama_library, "IkLlamaLibrary", load)
    monkeypatch.setattr(model, "LOADED", {})
    with ThreadPoolExecutor() as threads:
        assert len(set(threads.map(model.find_library, ["ik"] * 4))) == 1
