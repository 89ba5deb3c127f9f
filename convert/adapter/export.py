"""An adapter as a run-time LoRA in a GGUF file, which llama.cpp applies beside the frozen weights.

The layout is that of llama.cpp's convert_lora_to_gguf.py: `lora_a` (r, in) and `lora_b` (out, r) for each
tensor, and one alpha for all, with a scale of alpha / r.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from ...errors import AdapterError
from ...files.gguf_header import Field
from ...files.output import check_target
from ...files.safetensors import Rows
from ..source.architecture import permute
from ..source.checkpoint import Checkpoint, open_checkpoint
from ..tensors import TensorPlan, TensorSpec, plan_tensor
from ..write import write_gguf
from .adapter import PeftAdapter, load_adapter

_TEXT = GGUFValueType.STRING


def export_adapter(
    adapter: Path, base: Path, output: Path, *, adapter_id: str = "", base_id: str = ""
) -> str:
    """Write the PEFT folder `adapter`, for the model `base`, as a GGUF LoRA in float32.

    Returns:
        The file's SHA-256.

    Raises:
        AdapterError: it does not fit the base, or no run-time LoRA can say what it does.
        CheckpointError: the base cannot be read.
        OutputError: `output` cannot be written.
    """
    check_target(output, base, adapter)
    checkpoint = open_checkpoint(base, base_id)
    loaded = load_adapter(adapter, adapter_id)
    loaded.fit(checkpoint)
    factors = _factors(loaded, checkpoint)
    fields = {
        "general.name": Field(loaded.id, _TEXT),
        "thirteen.base.id": Field(checkpoint.id, _TEXT),
        "thirteen.adapter.id": Field(loaded.id, _TEXT),
        "thirteen.adapter.kind": Field(loaded.kind, _TEXT),
        "thirteen.adapter.sha256": Field(loaded.sha256, _TEXT),
    }
    return write_lora(output, checkpoint.architecture.name, fields, loaded.rank, factors)


def write_lora(
    output: Path,
    architecture: str,
    fields: Mapping[str, Field],
    rank: int,
    factors: Sequence[tuple[str, Rows]],
) -> str:
    """Write factors under their GGUF names, `….lora_a` (rank, in) and `….lora_b` (out, rank) by turns.

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: `output` cannot be written.
    """
    kind = {
        "general.type": Field("adapter", _TEXT),
        "adapter.type": Field("lora", _TEXT),
        "adapter.lora.alpha": Field(float(rank), GGUFValueType.FLOAT32),  # B holds the scale already
    }
    plans = [_plan(name, rows) for name, rows in factors]
    return write_gguf(
        output, architecture, {**kind, **fields}, plans, (rows.tobytes() for _, rows in factors)
    )


def _factors(adapter: PeftAdapter, base: Checkpoint) -> list[tuple[str, Rows]]:
    """Each tensor's factors under their GGUF names, all padded to one rank, since one alpha serves all."""
    factors = []
    for name, delta in adapter.deltas.items():
        spec = base.specs[name]
        if delta.magnitude is not None:
            raise AdapterError(
                f"{adapter.id}: DoRA rescales the base's rows, which no run-time LoRA can: merge it"
            )
        if spec.target == "token_embd.weight":
            raise AdapterError(
                f"{adapter.id}: a delta of the embedding cannot be applied at run time: merge it"
            )
        b = permute(delta.b, spec.heads) if spec.heads else delta.b
        extra = adapter.rank - delta.rank
        factors.append((f"{spec.target}.lora_a", np.pad(delta.a, ((0, extra), (0, 0)))))  # (rank, in)
        factors.append((f"{spec.target}.lora_b", np.pad(b, ((0, 0), (0, extra)))))  # (out, rank)
    return factors


def _plan(name: str, rows: Rows) -> TensorPlan:
    return plan_tensor(TensorSpec(name, name, rows.shape), GGMLQuantizationType.F32)
