"""Merges adapters without low-rank factors by PEFT itself, with the whole model in memory in float32."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError, ZeroAdapterError, install_hint, one_line
from ...files.json_file import json_texts
from ...files.safetensors import SafetensorsFile
from ...stats.arrays import Floats
from ..source.checkpoint import Checkpoint
from ..source.remote_code import refuse_code
from ..tensors import TensorSpec
from .adapter import WEIGHTS_FILE, read_adapter_config, refuse_adapter_beside
from .delta import CONFIG_FILE
from .module_patterns import CACHED_MAX, check_patterns

# Kinds that work by prompts, extra layers or routing: no merged weights can represent them.
_UNMERGEABLE = {
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING",
    "PROMPT_TUNING", "P_TUNING", "XLORA",
}  # fmt: skip


class PeftMergedCheckpoint(Checkpoint):
    """A Checkpoint whose tensors are those of PEFT's `merge_and_unload`.

    Attributes:
        full: the base before the merge.
        kind: the adapter's kind.
    """

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        """Load `base` with transformers and the adapter in `folder` with PEFT, and merge them.

        Raises:
            FileError: PEFT is not installed, does not know the adapter's kind, or cannot merge it.
            ZeroAdapterError: the merge changes nothing.
        """
        super().__init__(base, base.architecture)
        config = read_adapter_config(folder)
        self.kind = _mergeable_kind(folder, config)
        plain = {
            key: None for key in ("target_modules", "exclude_modules") if isinstance(config.get(key), list)
        }
        modules = [name.removesuffix(".weight") for name in base.specs]
        check_patterns(
            f"{folder / CONFIG_FILE}: the pattern", list(json_texts(config | plain)), modules, CACHED_MAX
        )
        self._weights = _merged_weights(base.path, folder, self.kind)
        if not any(map(self.changes, self.specs)):
            raise ZeroAdapterError(f"{folder}: its merge changes nothing")
        embedding = "model.embed_tokens.weight"
        if base.architecture.tied and any(
            self._differs(name, embedding) for name in (embedding, "lm_head.weight")
        ):
            raise FileError(f"{folder}: its merge changes the embedding, which this base ties to its output")

    def changes(self, name: str) -> bool:
        """Whether the merge changes a tensor."""
        return self._differs(name, name)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return self._read(name, self.specs[name], start, stop)

    def stored_rows(self, name: str, start: int, stop: int) -> bytes | None:
        """None: a merged tensor is stored nowhere."""
        return None

    def _differs(self, name: str, original: str) -> bool:
        spec = self.specs[original]
        rows = spec.shape[0]
        return not np.array_equal(self._read(name, spec, 0, rows), self.full.rows(original, 0, rows))

    def _read(self, name: str, spec: TensorSpec, start: int, stop: int) -> Floats:
        return spec.from_stored(np.array(self._weights[name][start:stop].numpy(), np.float32))


def _mergeable_kind(folder: Path, config: Mapping[str, Any]) -> str:
    kind = config.get("peft_type")
    if not isinstance(kind, str):
        raise FileError(f"{folder / CONFIG_FILE}: peft_type is {kind!r}")
    if kind in _UNMERGEABLE:
        raise FileError(f"{folder / CONFIG_FILE}: an adapter of kind {kind} cannot be merged")
    return kind


def _merged_weights(base: Path, folder: Path, kind: str) -> dict[str, Any]:
    """PEFT's merged weights in float32, by name."""
    try:
        import torch  # noqa: PLC0415 - all three come with an extra
        from peft import PeftModel, get_peft_model_state_dict  # noqa: PLC0415
        from peft.utils import PeftType  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415
    except ImportError as failure:
        raise FileError(
            f"{folder}: an adapter of kind {kind} is merged by PEFT ({failure.name} is missing): "
            f"{install_hint('peft')}"
        ) from None
    if kind not in PeftType.__members__:
        raise FileError(f"{folder / CONFIG_FILE}: the installed PEFT does not know the kind {kind!r}")
    model_folder, gguf = (base, {}) if base.is_dir() else (base.parent, {"gguf_file": base.name})
    refuse_code(model_folder)
    refuse_code(folder)
    refuse_adapter_beside(model_folder)
    try:
        with silenced():
            model = AutoModelForCausalLM.from_pretrained(
                model_folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, **gguf
            )
    except Exception as failure:
        raise FileError(f"{base}: transformers cannot load it: {one_line(failure)}") from failure
    try:
        with silenced():
            adapted = PeftModel.from_pretrained(model, folder, local_files_only=True)
            _check_keys(folder, get_peft_model_state_dict(adapted, save_embedding_layers=False))
            weights: dict[str, Any] = adapted.merge_and_unload(safe_merge=True).state_dict()
    except FileError:
        raise
    except Exception as failure:
        raise FileError(f"{folder}: PEFT cannot merge it: {one_line(failure)}") from failure
    return weights


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress the libraries' progress bars and warnings; the caller raises or checks errors."""
    from transformers.utils import logging  # noqa: PLC0415

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


def _check_keys(folder: Path, expected: Iterable[str]) -> None:
    """Raise FileError if the file lacks a tensor that PEFT expects, or has one that PEFT would ignore."""
    odd = set(expected) ^ set(SafetensorsFile(folder / WEIGHTS_FILE).entries)
    odd = {key for key in odd if not key.endswith(".base_layer.weight")}  # copies of the base's own
    if odd:
        raise FileError(
            f"{folder / WEIGHTS_FILE}: {len(odd)} tensors are missing or left over, such as {min(odd)!r}"
        )
