"""A GGUF of a base's tokenizer alone, for the runtime."""

from pathlib import Path

from .provenance import file_metadata
from .source.checkpoint import Checkpoint
from .write import write_arrays


def write_tokenizer_file(base: Checkpoint, target: Path) -> None:
    """Write the file; its only tensor is the first vector: a GGUF without any tensor is refused.

    Raises:
        OutputError: the target cannot be written.
    """
    spec = next(spec for spec in base.specs.values() if len(spec.shape) == 1)
    vector = {spec.target: base.rows(spec.source, 0, spec.shape[0])}
    write_arrays(target, file_metadata(base, None, None, "F32"), vector, base.path)
