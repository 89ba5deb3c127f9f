"""Layers on a GPU: refused where there is none, and what the native parameters say where there is one."""

import ctypes
from dataclasses import replace

import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.native import gpu, llama_cpp_library
from thirteen.runtime.native.bindings import llama_cpp
from thirteen.runtime.native.gpu import check_gpu_layers
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.plan import plan
from thirteen.runtime.plan.options import default_settings
from thirteen.runtime.plan.plan import EnginePlan

SETTINGS = Settings(128, 1, 64, threads=1, outputs=1)

pytestmark = pytest.mark.skipif(gpu.gpu_found(), reason="these tests are for a build without a GPU")


@pytest.fixture
def found(monkeypatch):
    """Pretend that there is a GPU."""
    monkeypatch.setattr(gpu, "gpu_found", lambda: True)


@pytest.mark.parametrize("layers", [1, 99, "all"])
def test_without_a_gpu_nothing_is_loaded(layers, tmp_path):
    """The file does not even exist."""
    with pytest.raises(RequestError, match=rf"^gpu_layers {layers}: .*-DGGML_VULKAN=ON") as caught:
        Engine(tmp_path / "missing.gguf", gpu_layers=layers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [-1, 1.5, True, "4", "ALL", "", 1 << 17])
def test_what_is_no_number_of_layers_is_refused(layers, found):
    with pytest.raises(RequestError, match="gpu_layers must be 'all' or an integer from 0 to 65536, not "):
        check_gpu_layers(layers)


@pytest.mark.parametrize(("layers", "native_layers"), [(0, 0), (5, 5), ("all", -1)])
def test_layers_reach_the_native_parameters(layers, native_layers, found):
    settings = default_settings({"gpu_layers": layers})
    assert settings.gpu_layers == layers
    native = llama_cpp_library._model_params(layers, repack=True)
    assert (native.n_gpu_layers, native.use_extra_bufts) == (native_layers, True)
    if layers:
        assert native.devices is None  # all devices
    else:
        assert ctypes.c_void_p.from_address(native.devices).value is None  # a list of none
    native = llama_cpp_library._context_params(settings, layers)
    assert native.op_offload == native.offload_kqv == bool(layers)


@pytest.mark.parametrize("layers", [0, 5])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SETTINGS, llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED),
        (replace(SETTINGS, flash_attention=None), llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO),
        (replace(SETTINGS, flash_attention=False), llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED),
        (replace(SETTINGS, exact=True), llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED),
    ],
)
def test_attention_reaches_the_native_parameters(settings, expected, layers):
    assert llama_cpp_library._context_params(settings, layers).flash_attn_type == expected


def test_attention_of_a_gpu_is_left_to_llama_cpp(tiny, found, monkeypatch):
    monkeypatch.setattr(plan, "find_tuning", None)
    for flash in (None, True, False):
        settings = EnginePlan.make(tiny, gpu_layers="all", flash_attention=flash).settings
        assert (settings.flash_attention, settings.kv) == (flash, "f16")
