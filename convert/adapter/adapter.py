"""Loads a trained PEFT adapter as low-rank factors: B (out, r) and A (r, in) in float32 for each base tensor.

lora.py and tinylora.py read the factors of their kinds. PEFT itself merges kinds without such factors: see
peft_merge.py.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import FileError, shorten
from ...files.atomic_write import atomic_write, write_file
from ...files.hashing import file_sha256
from ...files.json_file import read_json
from ...files.output import output_folder
from ...files.received_files import PROMPT_FILE, check_links
from ...files.safetensors import SafetensorsFile
from ...stats.arrays import Floats
from ..source.checkpoint import Checkpoint
from ..source.families import module_order
from ..tensors import TensorSpec
from ..vocabulary.vocabulary_list import VocabularyList
from ..vocabulary.vocabulary_metadata import vocabulary_of
from .delta import CONFIG_FILE, Delta, ModuleTensors, TrainedVectors
from .lora import read_lora
from .tinylora import read_tinylora

WEIGHTS_FILE = "adapter_model.safetensors"

_MODULE = re.compile(
    r"base_model\.model\.(?P<module>.+?)\."
    r"(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|tinylora_[ABP]|base_layer)"
    r"(\.weight)?"
)
_VECTOR = re.compile(r"base_model\.tinylora_v\.(0|[1-9][0-9]{0,5})")

# Settings that no single set of merged weights can represent.
_UNMERGEABLE_SETTINGS = {
    "target_parameters": "it adapts bare parameters",
    "layer_replication": "it repeats layers",
    "alora_invocation_tokens": "it only acts after certain tokens",
    "arrow_config": "it routes between adapters",
}
# LoRA settings that change the delta, or the base under it, in ways that only PEFT implements.
_PEFT_ONLY_SETTINGS = (
    *("kasa_config", "monteclora_config", "use_bdlora", "use_qalora", "velora_config", "lora_bias"),
    *("fan_in_fan_out", "modules_to_save", "trainable_token_indices"),
)
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class PeftAdapter:
    """A trained adapter, ready to merge.

    Attributes:
        id: the adapter as the user named it.
        kind: lora, rslora, dora or tinylora.
        trained_parameters: number of trained parameters.
        trained_on: the base as the adapter's own config names it.
        sha256: see adapter_sha256().
        deltas: the change of each base tensor, by the tensor's name.
        base_copies: base tensors that PEFT saved with the adapter.
        target_modules: name suffixes of the adapted modules; empty if unknown.
    """

    id: str
    kind: str
    trained_parameters: int
    trained_on: str | None
    sha256: str
    deltas: dict[str, Delta]
    base_copies: dict[str, Floats]
    target_modules: tuple[str, ...]

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(delta.rank for delta in self.deltas.values())

    @property
    def zero_deltas(self) -> list[str]:
        """Names of the tensors whose delta changes nothing."""
        return [name for name, delta in self.deltas.items() if delta.norm == 0 and delta.magnitude is None]

    def for_base(self, base: Checkpoint) -> "PeftAdapter":
        """The adapter for this base, which may keep only some tokens of the one that it was trained on.

        What it changes in the rows of dropped tokens is dropped with them.

        Raises:
            FileError: it does not fit; see check_fits().
        """
        kept = vocabulary_of(base)
        adapter = self if kept is None else self._select_tokens(kept)
        adapter.check_fits(base)
        return adapter

    def _select_tokens(self, kept: VocabularyList) -> "PeftAdapter":
        rows = np.array(kept.tokens, np.int64)
        deltas, copies = dict(self.deltas), dict(self.base_copies)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in deltas and len(deltas[name].b) == kept.of:
                deltas[name] = deltas[name].select_rows(rows)
            if name in copies and copies[name].shape[:1] == (kept.of,):
                copies[name] = copies[name][rows]
        return replace(self, deltas=deltas, base_copies=copies)

    def check_fits(self, base: Checkpoint) -> None:
        """Check that every delta has a tensor of its shape in `base`, and every targeted tensor a delta.

        Raises:
            FileError: the base lacks a tensor, shares it (tied embeddings) or has it in another shape; a
                delta is missing; or no delta changes anything.
        """
        for name, delta in self.deltas.items():
            shape = _base_spec(base, self.id, name).shape
            out, columns = len(delta.b), delta.a.shape[1]
            if shape != (out, columns):
                raise FileError(
                    f"{self.id}: the delta of {name!r} is ({out}, {columns}), the base's tensor {shape}: "
                    "it was trained on another model"
                )
        for name, rows in self.base_copies.items():
            shape = _base_spec(base, self.id, name).shape
            if rows.shape != shape or not np.array_equal(rows, base.rows(name, 0, shape[0])):
                raise FileError(f"{self.id}: its copy of {name!r} differs from the base's")
        suffixes = tuple(f".{module}.weight" for module in self.target_modules)
        missing = [name for name in base.specs if f".{name}".endswith(suffixes) and name not in self.deltas]
        if missing:
            raise FileError(f"{self.id}: its target_modules include {missing[0]!r}, which has no delta")
        if not any(d.norm or d.rescales(base.rows(name, 0, len(d.b))) for name, d in self.deltas.items()):
            raise FileError(f"{self.id}: every delta is zero: it changes nothing")


def refuse_adapter_beside(base_folder: Path) -> None:
    """Check that transformers, which loads the adapter of a folder with it, loads this base alone.

    Raises:
        FileError: the folder holds an adapter.
    """
    if (path := base_folder / CONFIG_FILE).exists():
        raise FileError(f"{path}: transformers would load this adapter with the base: move it away")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's adapter_config.json and refuse settings that cannot be merged.

    Raises:
        FileError: not a PEFT folder, weights only as a pickle, or settings that cannot be merged.
    """
    if folder.is_dir():
        check_links(folder)
    if not (folder / CONFIG_FILE).is_file():
        hint = ": a GGUF LoRA only applies at run time" if folder.suffix == ".gguf" else ""
        if (folder / PROMPT_FILE).is_file():
            hint = "; it has a prompt alone, which `thirteen convert --prompt` takes"
        raise FileError(f"{folder}: not a PEFT adapter: {CONFIG_FILE} is missing{hint}")
    config = read_json(folder / CONFIG_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        hint = "; adapter_model.bin is a pickle, which can run code: save it as safetensors"
        raise FileError(f"{folder}: {WEIGHTS_FILE} is missing{hint if pickled else ''}")
    base = config.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise FileError(f"{folder / CONFIG_FILE}: base_model_name_or_path is {shorten(base)}, not a name")
    for key, reason in _UNMERGEABLE_SETTINGS.items():
        if config.get(key):
            raise FileError(f"{folder / CONFIG_FILE}: {key} is set: {reason}, which cannot be merged")
    return config


def peft_only_reason(config: Mapping[str, Any]) -> str | None:
    """Why only PEFT can merge this adapter; None if its low-rank factors suffice."""
    kind = config.get("peft_type")
    if kind not in ("LORA", "TINYLORA"):
        return f"its kind is {shorten(kind)}"
    if config.get("bias", "none") != "none":
        return f"bias is {shorten(config['bias'])}"
    if kind == "TINYLORA":
        return None
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_BASE_CHANGING_INITS):
        return f"init_lora_weights is {shorten(init)}, which changes the base"
    if config.get("use_dora") and "embed" in str(config.get("target_modules")):  # names, or a pattern of them
        return "use_dora is set on an embedding"
    return next((f"{key} is set" for key in _PEFT_ONLY_SETTINGS if config.get(key)), None)


def load_adapter(folder: Path, adapter_id: str = "") -> PeftAdapter:
    """Load the adapter in a PEFT folder, its scale folded into B.

    Args:
        folder: the PEFT folder.
        adapter_id: the adapter as the user named it; the folder's name by default.

    Raises:
        FileError: the adapter is damaged, incomplete, not finite, all zero, or without low-rank factors.
    """
    config = read_adapter_config(folder)
    if reason := peft_only_reason(config):
        raise FileError(f"{folder}: it has no low-rank factors, and only PEFT can merge it: {reason}")
    tensors, vectors = _group_tensors(SafetensorsFile(folder / WEIGHTS_FILE))
    base_copies = {
        f"{module}.weight": parts.pop("base_layer")
        for module, parts in tensors.items()
        if "base_layer" in parts
    }
    tensors = {module: parts for module, parts in tensors.items() if parts}
    if not tensors:
        raise FileError(f"{folder / WEIGHTS_FILE}: no adapter weights in it")
    targets = _target_modules(config)
    with np.errstate(all="ignore"):  # the norm shows an overflow
        if config["peft_type"] == "TINYLORA":
            deltas, kind = read_tinylora(folder, config, tensors, vectors), "tinylora"
        else:
            deltas, kind = read_lora(folder, config, tensors)
        for module, delta in deltas.items():
            if not delta.norm < np.finfo(np.float32).max:
                raise FileError(f"{folder}: the delta of {module!r} is not finite")
            if targets and not f".{module}".endswith(tuple(f".{target}" for target in targets)):
                raise FileError(f"{folder}: a delta of {module!r}, which its target_modules leave out")
    trained = vectors.values() or [part for parts in tensors.values() for part in parts.values()]
    adapter = PeftAdapter(
        id=adapter_id or folder.resolve().name,
        kind=kind,
        trained_parameters=sum(tensor.size for tensor in trained),
        trained_on=config.get("base_model_name_or_path"),
        sha256=adapter_sha256(folder),
        deltas={f"{module}.weight": delta for module, delta in deltas.items()},
        base_copies=base_copies,
        target_modules=targets,
    )
    if len(adapter.zero_deltas) == len(adapter.deltas):
        raise FileError(f"{adapter.id}: every delta is zero: it changes nothing")
    return adapter


@contextmanager
def adapter_folder(folder: Path, others: Mapping[str, bytes]) -> Iterator[BinaryIO]:
    """Write an adapter's folder; the block writes the weights into the file that it is given.

    The other files, by name, are written when the weights are on disk, so that a failure leaves no config
    without its weights; and before the weights have their name, which marks a complete folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    with output_folder(folder), atomic_write(folder / WEIGHTS_FILE) as weights:
        yield weights
        weights.flush()
        os.fsync(weights.fileno())
        for name, content in others.items():
            write_file(folder / name, content)


def adapter_sha256(folder: Path) -> str:
    """Hash of an adapter's config, weights and prompt: a changed alpha changes it like a changed weight."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE, *([PROMPT_FILE] if (folder / PROMPT_FILE).exists() else [])):
        digest.update(bytes.fromhex(file_sha256(folder / name)))
    return digest.hexdigest()


def norms_by_layer(adapter: PeftAdapter) -> dict[str, float]:
    """Frobenius norm of all deltas of a layer (`layer 0`, …) or of a module outside the layers."""
    squares: dict[tuple[str, int], float] = {}
    for name, delta in adapter.deltas.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        place = ("layer", int(layer[1])) if layer else (name.removesuffix(".weight"), 0)
        squares[place] = squares.get(place, 0.0) + delta.norm**2
    names = {place: f"layer {place[1]}" if place[0] == "layer" else place[0] for place in sorted(squares)}
    return {name: math.sqrt(squares[place]) for place, name in names.items()}


def _group_tensors(file: SafetensorsFile) -> tuple[ModuleTensors, TrainedVectors]:
    """The tensors by module, in the order of the base's modules, and TinyLoRA's trained vectors."""
    tensors: ModuleTensors = {}
    vectors: TrainedVectors = {}
    orders = {}
    for key in file.entries:
        rows = file.rows(key)
        if not np.isfinite(rows).all():
            raise FileError(f"{file.path}: {key!r:.100} holds a value that is not finite")
        if vector := _VECTOR.fullmatch(key):
            vectors[int(vector[1])] = rows
        elif (found := _MODULE.fullmatch(key)) and (order := module_order(found["module"])):
            orders[found["module"]] = order
            if tensors.setdefault(found["module"], {}).setdefault(found["part"], rows) is not rows:
                raise FileError(f"{file.path}: {key!r:.100} occurs twice, with and without '.weight'")
        else:
            raise FileError(f"{file.path}: unknown key {key!r:.100}")
    return {module: tensors[module] for module in sorted(tensors, key=lambda module: orders[module])}, vectors


def _target_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The suffixes that PEFT adapts in all layers; none if the config has a pattern or excludes some."""
    names = config.get("target_modules")
    limited = any(config.get(key) is not None for key in ("layers_to_transform", "exclude_modules"))
    return tuple(map(str, names)) if isinstance(names, list) and not limited else ()


def _base_spec(base: Checkpoint, adapter_id: str, name: str) -> TensorSpec:
    if base.architecture.tied and name in ("lm_head.weight", "model.embed_tokens.weight"):
        raise FileError(f"{adapter_id}: a delta of {name!r}, but this base ties embedding and output")
    if name not in base.specs:
        raise FileError(f"{adapter_id}: the base has no tensor {name!r}")
    return base.specs[name]
