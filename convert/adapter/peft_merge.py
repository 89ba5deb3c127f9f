"""Merges adapters without low-rank factors by PEFT itself, with the whole model in memory in float32."""

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError, install_hint, one_line
from ...files.safetensors import SafetensorsFile
from ...stats import Floats
from ..source.checkpoint import Checkpoint
from ..source.loading import check_base_folder, refuse_code, silenced
from .adapter import WEIGHTS_FILE

_TOKENS = 64  # whose predictions are compared before and after the merge
_DIFFERENCE_MAX = 1e-3  # of the logits, relative to the largest


class PeftMergedCheckpoint(Checkpoint):
    """A Checkpoint whose tensors are those of PEFT's `merge_and_unload`."""

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        """Merge by transformers and PEFT; FileError if they are not installed, or cannot."""
        super().__init__(base, base.architecture)
        self._weights = _merged_weights(base.path, folder)
        if not any(map(self.changes, self.specs)):
            raise FileError(f"{folder}: its merge changes nothing")

    def changes(self, name: str) -> bool:
        """Whether the merge changes a tensor."""
        rows = self.specs[name].shape[0]
        return not np.array_equal(self.rows(name, 0, rows), self.full.rows(name, 0, rows))

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return self.specs[name].from_stored(np.array(self._weights[name][start:stop].numpy(), np.float32))

    def stored_rows(self, name: str, start: int, stop: int) -> bytes | None:
        """None: a merged tensor is stored nowhere."""
        return None


def _merged_weights(base: Path, folder: Path) -> dict[str, Any]:
    try:
        import torch  # noqa: PLC0415 - all three come with an extra
        from peft import PeftModel, get_peft_model_state_dict  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415
    except ImportError as failure:
        raise FileError(
            f"{folder}: PEFT merges this adapter ({failure.name} is missing): {install_hint('peft')}"
        ) from None
    model_folder, gguf = (base, {}) if base.is_dir() else (base.parent, {"gguf_file": base.name})
    check_base_folder(model_folder)
    refuse_code(folder)
    options = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    try:
        with silenced(), torch.no_grad():
            model = AutoModelForCausalLM.from_pretrained(model_folder, **options, **gguf)
            adapted = PeftModel.from_pretrained(model, folder, local_files_only=True).eval()
            state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
            tokens = torch.arange(min(_TOKENS, model.config.vocab_size))[None]
            before = adapted(tokens).logits
            merged = adapted.merge_and_unload(safe_merge=True)
            difference = (merged(tokens).logits - before).abs().max() / before.abs().max()
    except Exception as failure:
        raise FileError(f"{folder}: PEFT cannot merge it into {base}: {one_line(failure)}") from failure
    odd = set(state) ^ set(SafetensorsFile(folder / WEIGHTS_FILE).entries)
    odd = {key for key in odd if not key.endswith(".base_layer.weight")}  # copies of the base's own
    if odd:
        raise FileError(f"{folder}: {len(odd)} tensors are missing or left over, such as {min(odd)!r}")
    if not difference <= _DIFFERENCE_MAX:
        raise FileError(
            f"{folder}: merged, it computes something else, as where it changes the embedding or the output "
            "of a base that ties the two"
        )
    weights: dict[str, Any] = merged.state_dict()
    return weights
