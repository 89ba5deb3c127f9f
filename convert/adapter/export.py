"""Exports an adapter as a GGUF LoRA, which llama.cpp applies at run time, without a merge.

The layout is that of llama.cpp's convert_lora_to_gguf.py, with one alpha for all tensors.
"""

import shutil
from pathlib import Path

import numpy as np
from gguf import GGUFValueType

from ...errors import FileError
from ...files.gguf.header import Field
from ...files.json_file import decode_utf8, read_bounded
from ...files.received_files import PROMPT_FILE, PROMPT_KEY, file_sha256
from ...files.safetensors import SafetensorsFile
from ...stats import Floats
from ..source.architecture import EMBEDDING, permute
from ..source.checkpoint import Checkpoint, open_checkpoint
from ..write import write_arrays
from .adapter import WEIGHTS_FILE, PeftAdapter, adapter_folder, load_adapter, read_adapter_config
from .delta import CONFIG_FILE

# Incremented when an adapter is exported differently, so that older cached files are not used.
EXPORT_VERSION = 1

_PROMPT_BYTES_MAX = 1 << 16
_SOURCE_HASH = "thirteen.adapter.sha256"
_TEXT = GGUFValueType.STRING


def export_adapter(
    adapter: Path, base: Path, output: Path, *, base_id: str = "", adapter_id: str = ""
) -> str:
    """Write a PEFT folder as a GGUF LoRA in float32, for a base that may keep only some tokens.

    By default, base and adapter have the names of their file or folder in its provenance.

    Returns:
        The file's SHA-256.

    Raises:
        FileError: the adapter does not fit the base, or cannot be a run-time LoRA; the base cannot be read.
        OutputError: `output` cannot be written.
    """
    checkpoint = open_checkpoint(base, base_id)
    loaded = load_adapter(adapter, adapter_id).for_base(checkpoint)
    fields = {
        "general.architecture": Field(checkpoint.architecture.name, _TEXT),
        "general.type": Field("adapter", _TEXT),
        "adapter.type": Field("lora", _TEXT),
        "adapter.lora.alpha": Field(float(loaded.rank), GGUFValueType.FLOAT32),  # B holds the scale already
        "general.name": Field(loaded.id, _TEXT),
        "thirteen.base.id": Field(checkpoint.id, _TEXT),
        "thirteen.adapter.id": Field(loaded.id, _TEXT),
        "thirteen.adapter.kind": Field(loaded.kind, _TEXT),
        _SOURCE_HASH: Field(loaded.sha256, _TEXT),
    }
    if (prompt := adapter / PROMPT_FILE).exists():
        text = decode_utf8(read_bounded(prompt, _PROMPT_BYTES_MAX), str(prompt))
        fields[PROMPT_KEY] = Field(text, _TEXT)
    return write_arrays(output, fields, _adapter_tensors(loaded, checkpoint))


def _adapter_tensors(adapter: PeftAdapter, base: Checkpoint) -> dict[str, Floats]:
    """The factors of all tensors, padded with zeros to one rank, since they share one alpha."""
    tensors = {}
    for name, delta in adapter.deltas.items():
        spec = base.specs[name]
        if delta.magnitude is not None:
            raise FileError(f"{adapter.id}: DoRA rescales the base's rows: only a merge can")
        if spec.target == EMBEDDING:
            raise FileError(f"{adapter.id}: a delta of the embedding cannot be applied at run time: merge it")
        b = permute(delta.b, spec.heads) if spec.heads else delta.b
        padding = (0, adapter.rank - delta.rank)
        tensors[f"{spec.target}.lora_a"] = np.pad(delta.a, (padding, (0, 0)))
        tensors[f"{spec.target}.lora_b"] = np.pad(b, ((0, 0), padding))
    return tensors


def copy_adapter(folder: Path, output: Path) -> str:
    """Copy a PEFT folder, without what else is in it; returns the hash of the weights."""
    read_adapter_config(folder)
    SafetensorsFile(folder / WEIGHTS_FILE)
    names = [name for name in (PROMPT_FILE, CONFIG_FILE) if (folder / name).exists()]
    others = {name: (folder / name).read_bytes() for name in names}
    with (folder / WEIGHTS_FILE).open("rb") as source, adapter_folder(output, others) as weights:
        shutil.copyfileobj(source, weights)
    return file_sha256(output / WEIGHTS_FILE)
