"""The native library in a process that aborts."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from thirteen.runtime.llama.ik_llama_library import installed
from thirteen.runtime.llama.llama_cpp_library import LLAMA_CPP, llama_cpp
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings import LIBRARIES, LLAMA, Settings

LOAD = """
import pathlib, sys
from thirteen.runtime.llama.model import Model
from llama_cpp import Llama  # llama-cpp-python's classes, which print the library's messages
Model(pathlib.Path(sys.argv[1]))
"""


def test_messages_are_received_after_the_import_of_llama_cpp_pythons_classes(tiny: Path) -> None:
    """They were printed, and an error message said that llama.cpp gives no reason."""
    done = subprocess.run([sys.executable, "-c", LOAD, tiny], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(("layers", "native_layers"), [(0, 0), (5, 5), ("all", -1)])
def test_gpu_layers_reach_the_library(layers, native_layers, monkeypatch):
    """Without layers the model gets no device: llama.cpp would use one for large batches."""
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", lambda _, native: native)
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", lambda _, native: native)
    model = LLAMA_CPP.load_model(Path("x"), repack=True, gpu_layers=layers)
    assert (model.n_gpu_layers, model.use_extra_bufts) == (native_layers, True)
    devices = ctypes.c_void_p.from_address(model.devices).value if model.devices else "all"
    assert devices == ("all" if layers else None)
    settings = Settings(128, 1, 64, threads=1, flash_attention=None if layers else True, gpu_layers=layers)
    context = LLAMA_CPP.new_context(model, settings)
    assert context.op_offload == context.offload_kqv == bool(layers)
    assert context.flash_attn_type == (-1 if layers else 1)  # automatic


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
@pytest.mark.parametrize("library", LIBRARIES if installed() else [LLAMA])
def test_a_model_that_is_not_repacked_stays_in_its_file(tiny, tmp_path, library):
    path = shutil.copy(tiny, tmp_path / "a.gguf")  # which no other test has open
    with Model(path, library=library, repack=False):
        assert str(path) in Path("/proc/self/maps").read_text()
