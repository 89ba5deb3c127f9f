"""A GGUF of a base's tokenizer alone, for the runtime."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from .provenance import file_metadata
from .source.checkpoint import Checkpoint
from .tensors import plan_tensor
from .write import write_gguf


def write_tokenizer_file(base: Checkpoint, target: Path) -> None:
    """Write the file; its only tensor is the first vector: a GGUF without any tensor is refused.

    Raises:
        OutputError: the target cannot be written.
    """
    spec = next(spec for spec in base.specs.values() if len(spec.shape) == 1)
    values = base.rows(spec.source, 0, spec.shape[0]).astype(np.float32)
    fields = file_metadata(base, None, None, "F32")
    plan = plan_tensor(spec, GGMLQuantizationType.F32)
    write_gguf(target, fields, [plan], [values.tobytes()], source=base.path)
