"""The policy gradient of each question, kept with an adapter for the steps that follow.

Along a short step the gradient of a question changes less than its noise, since a few solutions estimate it.
So the gradients that an adapter was computed from count for the next step as well.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import AdapterError
from ...files.safetensors import SafetensorsFile, write_safetensors
from ...stats.interval import FloatArray

FILE = ".gradients.safetensors"
_TENSOR, _QUESTIONS, _BASIS = "gradients", "questions", "basis"


def save_gradients(folder: Path, gradients: Mapping[str, FloatArray], basis_id: str) -> None:
    """Save the gradients of questions, (numbers,) each, in an adapter's folder.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {_QUESTIONS: json.dumps([*gradients]), _BASIS: basis_id}
    rows = np.array([*gradients.values()], np.float32)  # (questions, numbers)
    write_safetensors(folder / FILE, {_TENSOR: rows}, metadata)


def saved_gradients(folder: Path, basis_id: str, numbers: int) -> dict[str, FloatArray]:
    """Read the gradients of questions that save_gradients() has saved; none if there is no file.

    Args:
        folder: the adapter's folder.
        basis_id: id of the basis that they must be of.
        numbers: its number of trained numbers.

    Raises:
        AdapterError: the file is damaged, or of another basis.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    file = SafetensorsFile(path, AdapterError)
    entry = file.entries.get(_TENSOR)
    try:
        questions = json.loads(file.metadata.get(_QUESTIONS, ""))
    except (ValueError, RecursionError):
        questions = None
    known = isinstance(questions, list) and all(isinstance(question, str) for question in questions)
    if not known or entry is None or entry.shape != (len(questions), numbers):
        raise AdapterError(f"{path}: damaged: delete it to start without the gradients of earlier steps")
    if file.metadata.get(_BASIS) != basis_id:
        raise AdapterError(f"{path}: the gradients are of another basis: delete it to start without them")
    rows = file.rows(_TENSOR).astype(float)
    if not np.isfinite(rows).all():
        raise AdapterError(f"{path}: a gradient is not finite: delete it to start without them")
    return dict(zip(questions, rows, strict=True))
