"""Self-test of the C structs that are mirrored in Python, before the first model is loaded.

ctypes sees no header: with another llama.cpp, a field would be read from the wrong place, without an error.
So values that the library itself puts into its structs are read back.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import requires, version
from typing import Any

from ...errors import FileError
from .bindings import llama_cpp

# Defaults of llama.cpp that have not changed for years, from the beginning to the end of each struct.
_MODEL_DEFAULTS = {
    **{"devices": None, "split_mode": 1, "main_gpu": 0, "progress_callback_user_data": None},
    **{"vocab_only": False, "check_tensors": False, "use_extra_bufts": True, "no_host": False},
}
_CONTEXT_DEFAULTS = {
    **{"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "rope_scaling_type": -1},
    **{"pooling_type": -1, "flash_attn_type": -1, "yarn_ext_factor": -1.0, "defrag_thold": -1.0},
    **{"cb_eval_user_data": None, "type_k": 1, "type_v": 1, "abort_callback_data": None},
    **{"embeddings": False, "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True},
    **{"kv_unified": False},
}


@cache
def check_struct_layouts() -> None:
    """Check the layouts; a second call returns at once.

    Raises:
        FileError: a value is not where it should be.
    """
    try:
        model, context = llama_cpp.llama_model_default_params(), llama_cpp.llama_context_default_params()
        wrong = next(differences((model, _MODEL_DEFAULTS), (context, _CONTEXT_DEFAULTS)), None)
    except (AttributeError, ImportError, OSError) as error:  # a struct, a field or a function is gone
        wrong = str(error)
    if wrong:
        (supported,) = (one for one in requires("thirteen") or [] if one.startswith("llama-cpp-python"))
        raise FileError(
            f"llama-cpp-python {version('llama-cpp-python')} has other struct layouts than those known here: "
            f"{wrong}; install {supported}"
        )


def differences(*defaults: tuple[Any, Mapping[str, object]]) -> Iterator[str]:
    """Describe the fields of structs of default values that have others than the known ones."""
    for struct, expected in defaults:
        for name, value in expected.items():
            if (found := getattr(struct, name)) != value:
                yield f"{type(struct).__name__}.{name} is {found!r} by default, not {value!r}"
