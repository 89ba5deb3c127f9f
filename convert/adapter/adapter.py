"""A trained PEFT adapter as low-rank factors: B (out, r) and A (r, in) in float32 for each base tensor.

lora.py and tinylora.py read the factors of their kinds. Kinds without such factors are merged by PEFT itself:
see peft_merge.py.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AdapterError
from ...files.json_file import read_json
from ...files.safetensors import Rows, SafetensorsFile
from ..source.architecture import module_order
from ..source.checkpoint import Checkpoint
from ..tensors import TensorSpec
from .delta import CONFIG, Delta, Parts, Vectors
from .lora import read_lora
from .tinylora import read_tinylora

WEIGHTS = "adapter_model.safetensors"

_MODULE = re.compile(
    r"base_model\.model\.(?P<module>.+?)\."
    r"(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|tinylora_[ABP]|base_layer)"
    r"(\.weight)?"
)
_VECTOR = re.compile(r"base_model\.tinylora_v\.(0|[1-9][0-9]{0,5})")

# What makes an adapter one that no merge into a single set of weights can honour.
_NEVER = {
    "modules_to_save": "it replaces whole modules",
    "trainable_token_indices": "it retrains single tokens",
    "target_parameters": "it adapts bare parameters",
    "layer_replication": "it repeats layers",
    "alora_invocation_tokens": "it only acts after certain tokens",
    "arrow_config": "it routes between adapters",
}
# LoRA settings that change the delta, or the base under it, in ways only PEFT knows.
_FOREIGN = (
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
    "velora_config",
    "lora_bias",
    "fan_in_fan_out",
)
_FOREIGN_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")  # these also change the base


@dataclass(frozen=True)
class PeftAdapter:
    """A trained adapter, ready to merge."""

    id: str  # the adapter as the user named it
    kind: str  # lora, rslora, dora or tinylora
    trained: int  # how many numbers training moved
    trained_on: str | None  # the base, as the adapter's own config names it
    sha256: str
    deltas: dict[str, Delta]  # by the name of the base tensor
    copies: dict[str, Rows]  # base tensors that PEFT saved along with the adapter
    targets: tuple[str, ...]  # what the names of its modules end with; empty = not known

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(delta.rank for delta in self.deltas.values())

    @property
    def zeros(self) -> list[str]:
        """Tensors that are named but not changed."""
        return [name for name, delta in self.deltas.items() if delta.norm == 0 and delta.magnitude is None]

    def fit(self, base: Checkpoint) -> None:
        """Check that every delta has a tensor of its shape in `base`, and every targeted tensor a delta.

        Raises:
            AdapterError: a tensor that the base lacks, shares (tied embeddings) or has in another shape; a
                delta that is missing; or none that changes anything.
        """
        for name, delta in self.deltas.items():
            shape = _target(base, self.id, name).shape
            out, columns = len(delta.b), delta.a.shape[1]
            if shape != (out, columns):
                raise AdapterError(
                    f"{self.id}: the delta of {name!r} is ({out}, {columns}), the base's tensor {shape}: "
                    "it was trained on another model"
                )
        for name, rows in self.copies.items():
            shape = _target(base, self.id, name).shape
            if rows.shape != shape or not np.array_equal(rows, base.rows(name, 0, shape[0])):
                raise AdapterError(f"{self.id}: it carries a copy of {name!r} that differs from the base's")
        ends = tuple(f".{target}.weight" for target in self.targets)
        missing = [name for name in base.specs if f".{name}".endswith(ends) and name not in self.deltas]
        if missing:
            raise AdapterError(
                f"{self.id}: its target_modules take in {missing[0]!r}, but that delta is missing"
            )
        if not any(d.norm or d.rescales(base.rows(name, 0, len(d.b))) for name, d in self.deltas.items()):
            raise AdapterError(f"{self.id}: every delta is zero: it changes nothing")


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's adapter_config.json, checked for what no merge can honour.

    Raises:
        AdapterError: not a PEFT folder, weights only as a pickle, or settings that cannot be merged.
    """
    if not (folder / CONFIG).is_file():
        raise AdapterError(f"{folder}: not a PEFT adapter: {CONFIG} is missing")
    config = read_json(folder / CONFIG, AdapterError)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        hint = (
            "; adapter_model.bin is a pickle, which can run code: save it as safetensors" if pickled else ""
        )
        raise AdapterError(f"{folder}: {WEIGHTS} is missing{hint}")
    for key, why in _NEVER.items():
        if config.get(key):
            raise AdapterError(f"{folder / CONFIG}: {key} is set: {why}, which cannot be merged")
    return config


def foreign_reason(config: Mapping[str, Any]) -> str | None:
    """Why this adapter's merge is PEFT's own to do, or None where the factors say all."""
    kind = config.get("peft_type")
    if kind not in ("LORA", "TINYLORA"):
        return f"its kind is {kind}"
    if config.get("bias", "none") != "none":
        return f"bias is {config['bias']!r}"
    if kind == "TINYLORA":
        return None
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_FOREIGN_STARTS):
        return f"init_lora_weights is {start!r}, which changes the base"
    return next((f"{key} is set" for key in _FOREIGN if config.get(key)), None)


def load_adapter(folder: Path, id_: str = "") -> PeftAdapter:
    """The adapter in a PEFT `folder`, its scale folded into B; `id_` is how the user named it.

    Raises:
        AdapterError: damaged, incomplete, not finite, all zero, or of a kind without low-rank factors.
    """
    config = read_config(folder)
    if reason := foreign_reason(config):
        raise AdapterError(
            f"{folder}: {reason}: no low-rank factors to read; only a merge by PEFT is possible"
        )
    file = SafetensorsFile(folder / WEIGHTS, AdapterError)
    parts, vectors = _sort_keys(file)
    copies = {
        f"{module}.weight": found.pop("base_layer")
        for module, found in parts.items()
        if "base_layer" in found
    }
    parts = {module: found for module, found in parts.items() if found}
    if not parts:
        raise AdapterError(f"{folder / WEIGHTS}: no adapter weights in it")
    with np.errstate(all="ignore"):  # what overflows here is found by its norm
        if config["peft_type"] == "TINYLORA":
            deltas, kind = read_tinylora(folder, config, parts, vectors), "tinylora"
        else:
            deltas, kind = read_lora(folder, config, parts)
        for module, delta in deltas.items():
            if not delta.norm < np.finfo(np.float32).max:
                raise AdapterError(f"{folder}: the delta of {module!r} is not finite")
    trained = sum(vector.size for vector in vectors.values()) or sum(
        part.size for found in parts.values() for part in found.values()
    )
    adapter = PeftAdapter(
        id=id_ or folder.resolve().name,
        kind=kind,
        trained=trained,
        trained_on=config.get("base_model_name_or_path"),
        sha256=folder_sha256(folder),
        deltas={f"{module}.weight": delta for module, delta in deltas.items()},
        copies=copies,
        targets=_targets(config),
    )
    if len(adapter.zeros) == len(adapter.deltas):
        raise AdapterError(f"{adapter.id}: every delta is zero: it changes nothing")
    return adapter


def norms_by_layer(adapter: PeftAdapter) -> dict[str, float]:
    """The Frobenius norm of everything an adapter adds, by layer (`layer 0`, …) or module outside them."""
    squares: dict[str, float] = {}
    for name, delta in adapter.deltas.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        place = f"layer {int(layer[1])}" if layer else name.removesuffix(".weight")
        squares[place] = squares.get(place, 0.0) + delta.norm**2
    ordered = sorted(
        squares, key=lambda place: (place.split()[0], int(place.split()[1]) if " " in place else 0)
    )
    return {place: math.sqrt(squares[place]) for place in ordered}


def _sort_keys(file: SafetensorsFile) -> tuple[Parts, Vectors]:
    """The parts by module, in the order of the base's modules, and TinyLoRA's vectors."""
    parts: Parts = {}
    vectors: Vectors = {}
    orders = {}
    for key in file.entries:
        rows = file.rows(key)
        if not np.isfinite(rows).all():
            raise AdapterError(f"{file.path}: {key!r} holds a value that is not finite")
        if vector := _VECTOR.fullmatch(key):
            vectors[int(vector[1])] = rows
        elif (found := _MODULE.fullmatch(key)) and (order := module_order(found["module"])):
            orders[found["module"]] = order
            if parts.setdefault(found["module"], {}).setdefault(found["part"], rows) is not rows:
                raise AdapterError(f"{file.path}: {key!r} stands twice, with and without '.weight'")
        else:
            raise AdapterError(
                f"{file.path}: the key {key!r} cannot be honoured: no supported model has such a part"
            )
    return {module: parts[module] for module in sorted(parts, key=lambda module: orders[module])}, vectors


def _targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that PEFT looks for in all layers; none where the config has a pattern or leaves some out."""
    names = config.get("target_modules")
    limited = any(config.get(key) is not None for key in ("layers_to_transform", "exclude_modules"))
    return tuple(map(str, names)) if isinstance(names, list) and not limited else ()


def _target(base: Checkpoint, id_: str, name: str) -> TensorSpec:
    if base.architecture.tied and name in ("lm_head.weight", "model.embed_tokens.weight"):
        raise AdapterError(f"{id_}: a delta of {name!r}, but this base ties its embedding and its output")
    if name not in base.specs:
        raise AdapterError(f"{id_}: the base has no tensor {name!r}")
    return base.specs[name]


def folder_sha256(folder: Path) -> str:
    """One hash of an adapter's two files, so that a changed alpha shows as much as a changed weight."""
    both = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        both.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return both.hexdigest()
