"""The base model: lazy tensors of a safetensors folder or a GGUF, by transformers' names, as float32 rows."""

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from ...errors import CheckpointError
from ...files.gguf_header import Field, Header, read_header
from ...files.hashing import file_sha256
from ...files.json_file import read_json
from ...files.safetensors import Rows, SafetensorsFile
from ..tensors import TensorSpec
from . import architecture as arch
from .architecture import Architecture
from .tokenizer import tokenizer_fields

INDEX = "model.safetensors.index.json"
ROPE_FACTORS = "rope_freqs.weight"
_FLOATS = {GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16}


class Checkpoint(Protocol):
    """What the converter needs of a base, wherever its weights lie."""

    id: str  # the base's name in the provenance
    path: Path  # the folder or file
    architecture: Architecture
    specs: dict[str, TensorSpec]

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of the tensor that a checkpoint calls `name`, in transformers' order."""

    @property
    def rope_factors(self) -> Rows | None:
        """The rotary frequencies' factors, (head_dim / 2,), if the model has any."""

    @property
    def tokenizer(self) -> dict[str, Field]:
        """The tokenizer and chat template as GGUF metadata."""

    @property
    def quantized(self) -> Mapping[str, int]:
        """How many tensors were already quantized, by type: rounding them again adds to the loss."""

    def sha256(self) -> str:
        """The hash of the weights' bytes; of several shards, the hash of `sha256sum`'s listing of them."""


def open_checkpoint(path: Path, id_: str = "") -> Checkpoint:
    """Open the base at `path`, a folder of safetensors or a GGUF file; `id_` is how the user named it.

    Raises:
        CheckpointError: nothing usable is there, or it is damaged or unsupported.
        ModelFileError: a damaged GGUF.
    """
    if path.is_dir():
        return FolderCheckpoint(path, id_ or path.resolve().name)
    if path.is_file():
        return GgufCheckpoint(path, id_ or path.resolve().name)
    raise CheckpointError(f"{path}: no such file or folder")


class FolderCheckpoint:
    """A folder as transformers saves it: config.json, tokenizer.json and one or more safetensors files."""

    quantized: Mapping[str, int] = {}

    def __init__(self, folder: Path, id_: str) -> None:
        """Open the folder and check that it holds every tensor of its architecture, and no other."""
        self.path = folder
        self.id = id_
        self.architecture = arch.from_config(read_json(folder / "config.json"), str(folder / "config.json"))
        self.specs = arch.tensor_specs(self.architecture)
        self._files = self._locate()
        self._check()

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """See Checkpoint."""
        return self._files[name].rows(name, start, stop)

    def dtype(self, name: str) -> str:
        """The type that a tensor is kept in, by safetensors' name: BF16, F16 or F32."""
        return self._files[name].entries[name].dtype

    @property
    def rope_factors(self) -> Rows | None:
        """See Checkpoint."""
        return arch.rope_factors(self.architecture)

    @cached_property
    def tokenizer(self) -> dict[str, Field]:
        """See Checkpoint."""
        return tokenizer_fields(self.path, self.architecture.vocab)

    def sha256(self) -> str:
        """See Checkpoint."""
        files = sorted({file.path for file in self._files.values()})
        if len(files) == 1:
            return file_sha256(files[0])
        listing = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()

    def _locate(self) -> dict[str, SafetensorsFile]:
        """Which file holds each tensor."""
        if not (self.path / INDEX).exists():
            path = self.path / "model.safetensors"
            if not path.exists():
                raise CheckpointError(f"{self.path}: neither model.safetensors nor {INDEX} is there")
            file = SafetensorsFile(path)
            return dict.fromkeys(file.entries, file)
        index = read_json(self.path / INDEX).get("weight_map")
        if not isinstance(index, dict):
            raise CheckpointError(f"{self.path / INDEX}: no weight_map")
        shards = {shard: self._shard(shard) for shard in sorted({str(shard) for shard in index.values()})}
        for name, shard in index.items():
            if name not in shards[str(shard)].entries:
                raise CheckpointError(
                    f"{self.path / shard}: tensor {name!r} is missing, which {INDEX} puts there"
                )
        return {name: shards[str(shard)] for name, shard in index.items()}

    def _shard(self, name: str) -> SafetensorsFile:
        if not re.fullmatch(r"[^/\\:\0]+\.safetensors", name):
            raise CheckpointError(
                f"{self.path / INDEX}: {name!r} is not the plain name of a safetensors file"
            )
        return SafetensorsFile(self.path / name)

    def _check(self) -> None:
        entries = {name: file.entries[name] for name, file in self._files.items()}
        extra = [n for n in entries if n not in self.specs and not n.endswith("rotary_emb.inv_freq")]
        if self.architecture.tied and "lm_head.weight" in extra:
            extra.remove("lm_head.weight")  # some save the tied weight a second time
        if extra:
            raise CheckpointError(
                f"{self.path}: {len(extra)} tensors that {self.architecture.name} does not have, "
                f"such as {extra[0]!r}"
            )
        for name, spec in self.specs.items():
            if name not in entries:
                raise CheckpointError(f"{self.path}: tensor {name!r} is missing")
            if entries[name].shape != spec.shape:
                raise CheckpointError(
                    f"{self.path}: tensor {name!r} has the shape {entries[name].shape}; "
                    f"config.json makes it {spec.shape}"
                )


class GgufCheckpoint:
    """A GGUF as a base: tensors are dequantized, and q and k put back into transformers' order of rows."""

    def __init__(self, path: Path, id_: str) -> None:
        """Open the file and check that it holds every tensor of its architecture, and no other."""
        self.id = id_
        self.path = path
        self.header: Header = read_header(path)
        self._factors = self.header.tensors.get(ROPE_FACTORS)
        self._tensors = {name: t for name, t in self.header.tensors.items() if name != ROPE_FACTORS}
        tied = "output.weight" not in self._tensors
        self.architecture = arch.from_metadata(
            self.header.metadata, tied=tied, stretched=self._factors is not None, where=str(path)
        )
        self.specs = arch.tensor_specs(self.architecture)
        self._check()

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """See Checkpoint; for a permuted tensor, whole heads only."""
        spec = self.specs[name]
        rows = self._read(spec.target, start, stop)
        if not spec.heads:
            return rows
        return arch.unpermute(rows, (stop - start) * spec.heads // spec.shape[0])

    @property
    def rope_factors(self) -> Rows | None:
        """See Checkpoint."""
        return None if self._factors is None else self._read(ROPE_FACTORS, 0, self._factors.shape[0])

    @property
    def tokenizer(self) -> dict[str, Field]:
        """See Checkpoint: carried over as it is."""
        return {key: field for key, field in self.header.fields.items() if key.startswith("tokenizer.")}

    @property
    def quantized(self) -> dict[str, int]:
        """See Checkpoint."""
        names = [tensor.type.name for tensor in self._tensors.values() if tensor.type not in _FLOATS]
        return {name: names.count(name) for name in sorted(set(names))}

    def sha256(self) -> str:
        """See Checkpoint."""
        return file_sha256(self.header.path)

    def _read(self, target: str, start: int, stop: int) -> Rows:
        tensor = self.header.tensors[target]
        row_bytes = tensor.nbytes // tensor.shape[0]
        raw = np.fromfile(
            self.header.path, np.uint8, (stop - start) * row_bytes, offset=tensor.offset + start * row_bytes
        )
        rows = dequantize(raw.reshape(stop - start, row_bytes), tensor.type)
        return np.asarray(rows, np.float32).reshape(stop - start, *tensor.shape[1:])

    def _check(self) -> None:
        path, shapes = self.header.path, {spec.target: spec.shape for spec in self.specs.values()}
        possible = shapes | {ROPE_FACTORS: (self.architecture.head_dim // 2,)}
        for name, tensor in self.header.tensors.items():
            if name not in possible:
                raise CheckpointError(f"{path}: the tensor {name!r} is none of {self.architecture.name}'s")
            if tensor.shape != possible[name]:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has the shape {tensor.shape}; "
                    f"its metadata makes it {possible[name]}"
                )
            if not _dequantizable(tensor.type) or (len(tensor.shape) == 1 and tensor.type not in _FLOATS):
                raise CheckpointError(
                    f"{path}: tensor {name!r} is {tensor.type.name}, which cannot be dequantized"
                )
        for name in shapes:
            if name not in self._tensors:
                raise CheckpointError(f"{path}: tensor {name!r} is missing")


def _dequantizable(type_: GGMLQuantizationType) -> bool:
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[type_][1]), np.uint8), type_)
    except NotImplementedError:
        return False
    return True
