"""Logits of a file by llama-cpp-python's own class, the oracle of what a file means."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llama_cpp import Llama
from numpy.typing import NDArray


def logits(path: Path, tokens: Sequence[int], lora: Path | None = None) -> NDArray[np.float32]:
    """The logits after each token, with a float32 KV cache and a run-time LoRA, (tokens, vocabulary)."""
    model = Llama(
        str(path),
        n_ctx=256,
        n_batch=512,
        logits_all=True,
        verbose=False,
        type_k=0,
        type_v=0,
        lora_path=lora and str(lora),
    )
    try:
        model.eval(tokens)
        return np.array(model.scores[: len(tokens)], np.float32)
    finally:
        model.close()
