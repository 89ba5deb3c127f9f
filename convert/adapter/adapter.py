"""A trained PEFT adapter as low-rank factors: B (out, r) and A (r, in) in float32 for each base tensor.

PEFT itself merges kinds without such factors: see peft_merge.py.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import FileError, shorten
from ...files.json_file import layout_errors, read_json
from ...files.output import atomic_write, make_folder, write_file
from ...files.received_files import PROMPT_FILE, check_links, file_sha256
from ...files.safetensors import SafetensorsFile
from ..source.checkpoint import Checkpoint
from ..source.families import module_order
from ..vocabulary.vocabulary_list import vocabulary_of
from .delta import CONFIG_FILE, Delta, ModuleTensors, TrainedVectors, read_lora, read_tinylora

WEIGHTS_FILE = "adapter_model.safetensors"

_MODULE = re.compile(
    r"base_model\.model\.(?P<module>.+?)\."
    r"(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|tinylora_[ABP]|base_layer)"
    r"(\.weight)?"
)
_VECTOR = re.compile(r"base_model\.tinylora_v\.(0|[1-9][0-9]{0,5})")
# What a missing file of an adapter often means: file that is there instead -> hint.
_INSTEAD = {
    "adapter_model.bin": "; adapter_model.bin is a pickle, which can run code: save it as safetensors",
    PROMPT_FILE: "; it has a prompt alone, which `thirteen convert --prompt` takes",
}
# LoRA settings that change more than a low-rank delta, or the base under it; PEFT merges them, if anyone can.
_PEFT_ONLY_SETTINGS = (
    *("kasa_config", "monteclora_config", "use_bdlora", "use_qalora", "velora_config", "lora_bias"),
    *("fan_in_fan_out", "modules_to_save", "trainable_token_indices"),
    *("target_parameters", "alora_invocation_tokens", "arrow_config"),
)
_BY_TOKEN = {"lm_head.weight", "model.embed_tokens.weight"}  # have a row for each token
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class PeftAdapter:
    """A trained adapter, ready to merge."""

    id: str  # as the user named it
    kind: str  # lora, rslora, dora or tinylora
    trained_parameters: int
    trained_on: str | None  # the base as the adapter's own config names it
    sha256: str  # see adapter_sha256()
    deltas: dict[str, Delta]  # by the name of the base's tensor

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max((delta.rank for delta in self.deltas.values()), default=0)

    def for_base(self, base: Checkpoint) -> "PeftAdapter":
        """The adapter for this base, without its changes to rows of tokens that the base has not kept.

        Raises:
            FileError: it was trained on another model, or changes nothing.
        """
        deltas = dict(self.deltas)
        if kept := vocabulary_of(base):
            for name in _BY_TOKEN & deltas.keys():
                if len(deltas[name].b) == kept.of:
                    deltas[name] = deltas[name].select_rows(np.array(kept.tokens, np.int64))
        adapter = replace(self, deltas=deltas)
        adapter._check_fits(base)
        return adapter

    def _check_fits(self, base: Checkpoint) -> None:
        for name, delta in self.deltas.items():
            expected: object = base.specs[name].shape if name in base.specs else "missing"
            if base.architecture.tied and name in _BY_TOKEN:
                expected = "tied to another"
            if delta.shape != expected:
                raise FileError(
                    f"{self.id}: its {name!r} is {delta.shape}, and that of the base {expected}: it was "
                    "trained on another model"
                )
        if not any(d.norm or d.rescales(base.rows(name, 0, len(d.b))) for name, d in self.deltas.items()):
            raise FileError(f"{self.id}: every delta is zero: it changes nothing")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read adapter_config.json; FileError if the folder is no PEFT adapter with safetensors."""
    if folder.is_dir():
        check_links(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            hint = next((hint for other, hint in _INSTEAD.items() if (folder / other).is_file()), "")
            if folder.suffix == ".gguf":
                hint = ": a GGUF LoRA only applies at run time"
            raise FileError(f"{folder}: not a PEFT adapter: {name} is missing{hint}")
    config = read_json(folder / CONFIG_FILE)
    if config.get("layer_replication"):
        raise FileError(f"{folder / CONFIG_FILE}: layer_replication is set: the base has no such layers")
    if not isinstance(config.get("base_model_name_or_path"), str):
        config["base_model_name_or_path"] = None
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
    """Load the adapter in a PEFT folder, its scale folded into B; its id is by default the folder's name.

    Raises:
        FileError: the adapter is damaged, incomplete, not finite, or without low-rank factors.
    """
    config = read_adapter_config(folder)
    if reason := peft_only_reason(config):
        raise FileError(f"{folder}: it has no low-rank factors, and only PEFT can merge it: {reason}")
    tensors, vectors = _group_tensors(SafetensorsFile(folder / WEIGHTS_FILE))
    # The norm shows an overflow.
    with np.errstate(all="ignore"), layout_errors(folder / CONFIG_FILE):
        if config["peft_type"] == "TINYLORA":
            deltas, kind = read_tinylora(folder, config, tensors, vectors), "tinylora"
        else:
            deltas, kind = read_lora(folder, config, tensors)
        for module, delta in deltas.items():
            if not delta.norm < np.finfo(np.float32).max:
                raise FileError(f"{folder}: the delta of {module!r} is not finite")
    trained = vectors.values() or [part for parts in tensors.values() for part in parts.values()]
    return PeftAdapter(
        id=adapter_id or folder.resolve().name,
        kind=kind,
        trained_parameters=sum(tensor.size for tensor in trained),
        trained_on=config["base_model_name_or_path"],
        sha256=adapter_sha256(folder),
        deltas={f"{module}.weight": delta for module, delta in deltas.items()},
    )


@contextmanager
def adapter_folder(folder: Path, others: Mapping[str, bytes]) -> Iterator[BinaryIO]:
    """Write an adapter's folder; the block writes the weights into the file that it is given.

    The other files, by name, are written once the weights are on disk, and before these have their name: no
    failure leaves a config without weights, and weights mark a complete folder.
    """
    make_folder(folder)
    with atomic_write(folder / WEIGHTS_FILE) as weights:
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


def _group_tensors(file: SafetensorsFile) -> tuple[ModuleTensors, TrainedVectors]:
    """The tensors by module, in the order of the base's modules, and TinyLoRA's trained vectors."""
    tensors: ModuleTensors = {}
    vectors: TrainedVectors = {}
    orders = {}
    for key in file.entries:
        if vector := _VECTOR.fullmatch(key):
            vectors[int(vector[1])] = file.rows(key)
        elif not (found := _MODULE.fullmatch(key)) or not (order := module_order(found["module"])):
            raise FileError(f"{file.path}: unknown key {key!r:.100}")
        elif found["part"] != "base_layer":  # PEFT's copy of the base's own tensor
            orders[found["module"]] = order
            tensors.setdefault(found["module"], {})[found["part"]] = file.rows(key)
    return {module: tensors[module] for module in sorted(tensors, key=lambda module: orders[module])}, vectors
