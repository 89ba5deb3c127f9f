"""Checkpoints of base models: a safetensors folder or a GGUF, read lazily as float32 rows."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from ...errors import FileError
from ...files.gguf.header import Field, Header, read_header
from ...files.json_file import layout_errors, read_json
from ...files.received_files import check_links, file_sha256
from ...files.safetensors import SafetensorsFile, read_items
from ...stats import Floats
from ..tensors import GGML_TYPES
from .architecture import Architecture, tensor_specs, unpermute
from .model_config import from_config
from .model_metadata import from_header
from .tokenizer import tokenizer_fields

INDEX = "model.safetensors.index.json"
FLOATS = {GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16}
_UNREAD = ".rotary_emb.inv_freq"  # in old checkpoints; transformers computes it
_FLOATS = sorted(type_.name for type_ in FLOATS)
_DEQUANTIZED = [*GGML_TYPES, "NVFP4"]  # those that gguf's dequantize() knows


class Checkpoint:
    """A base model. Tensors have transformers' names and row order, and GGUF's values.

    By itself it presents another one, `full`. A subclass replaces what it changes, or reads a folder or file.

    Attributes:
        id: name in the provenance.
        path: the folder or file.
        architecture: sizes and constants.
        specs: the tensors by name, in transformers' order, without the RoPE factors.
    """

    def __init__(
        self, full: "Checkpoint", architecture: Architecture, names: Mapping[str, str] | None = None
    ) -> None:
        """Present `full` with the sizes of `architecture`; `names` has the tensors with other names there."""
        self.full = full
        self.id: str = full.id
        self.path: Path = full.path
        self.architecture = architecture
        self.specs = tensor_specs(architecture)
        self._names = names or {}

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Read rows `start` to `stop` of a tensor; of a permuted one only whole heads."""
        return self.full.rows(self._names.get(name, name), start, stop)

    def stored_type(self, name: str) -> GGMLQuantizationType:
        """The type in which the checkpoint has a tensor."""
        return self.full.stored_type(self._names.get(name, name))

    def stored_rows(self, name: str, start: int, stop: int) -> bytes | None:
        """Read the bytes of rows `start` to `stop` in GGUF's row order; None if the base is no GGUF."""
        return self.full.stored_rows(self._names.get(name, name), start, stop)

    @property
    def rope_tensors(self) -> dict[str, Floats]:
        """Divisors of the RoPE frequencies as a GGUF has them, by tensor name; empty without scaling."""
        return self.full.rope_tensors

    @property
    def tokenizer(self) -> dict[str, Field]:
        """Tokenizer and chat template as GGUF metadata."""
        return self.full.tokenizer

    def sha256(self) -> str:
        """Hash of the weight file, or of several shards that of what `sha256sum` prints of them."""
        return self.full.sha256()


def open_checkpoint(path: Path, id_: str = "") -> Checkpoint:
    """Open a folder of safetensors or a GGUF as a base; `id_` is its name in the provenance.

    Raises:
        FileError: the base is missing, damaged or unsupported.
    """
    if path.is_dir():
        return FolderCheckpoint(path, id_ or path.resolve().name)
    if path.is_file():
        return GgufCheckpoint(path, id_ or path.resolve().name)
    raise FileError(f"{path}: no such file or folder")


def quantized_types(base: Checkpoint) -> dict[str, int]:
    """Number of a base's quantized tensors by type, in the order of the names."""
    types = (base.stored_type(name) for name in base.specs)
    return dict(sorted(Counter(type_.name for type_ in types if type_ not in FLOATS).items()))


class FolderCheckpoint(Checkpoint):
    """Folder as saved by transformers: config.json, tokenizer.json and one or more safetensors files."""

    def __init__(self, folder: Path, id_: str) -> None:
        """Open the folder and check that it has exactly the tensors of its architecture."""
        if not (folder / "config.json").exists():
            file = min(folder.glob("*.gguf"), default=None)
            raise FileError(
                f"{folder}: a model's folder has config.json, tokenizer.json and *.safetensors, and this one "
                "no config.json" + (f"; a GGUF is named itself: {file}" if file else "")
            )
        check_links(folder)
        self.path = folder
        self.id = id_
        architecture = from_config(read_json(folder / "config.json"), str(folder / "config.json"))
        self._files = self._locate()
        # As in transformers, both are one matrix only if they are equal; see MergedModel.
        self.architecture = replace(
            architecture, tied=architecture.tied and "lm_head.weight" not in self._files
        )
        self.specs = tensor_specs(self.architecture)
        entries = ((name, file.entries[name]) for name, file in self._files.items())
        tensors = {name: (entry.shape, entry.dtype) for name, entry in entries if not name.endswith(_UNREAD)}
        expected = {name: spec.stored_shape for name, spec in self.specs.items()}
        _check_tensors(folder, self.architecture.name, tensors, expected, _FLOATS)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return self.specs[name].from_stored(self._files[name].rows(name, start, stop))

    def stored_type(self, name: str) -> GGMLQuantizationType:
        return GGMLQuantizationType[self._files[name].entries[name].dtype]

    def stored_rows(self, name: str, start: int, stop: int) -> bytes | None:
        return None

    @property
    def rope_tensors(self) -> dict[str, Floats]:
        return self.architecture.rope_tensors

    @cached_property
    def tokenizer(self) -> dict[str, Field]:
        return tokenizer_fields(self.path, self.architecture.vocab)

    def sha256(self) -> str:
        files = sorted({file.path for file in self._files.values()})
        listing = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
        return file_sha256(*files) if len(files) == 1 else hashlib.sha256(listing.encode()).hexdigest()

    def _locate(self) -> dict[str, SafetensorsFile]:
        if (path := self.path / "model.safetensors").exists():  # as in transformers, before an index
            file = SafetensorsFile(path)
            return dict.fromkeys(file.entries, file)
        if not (self.path / INDEX).exists():
            raise FileError(f"{self.path}: has neither model.safetensors nor {INDEX}")
        # Names without folders: a file elsewhere is not the checkpoint's.
        with layout_errors(self.path / INDEX):
            names = {Path(name).name for name in read_json(self.path / INDEX)["weight_map"].values()}
        shards = [SafetensorsFile(self.path / name) for name in sorted(names)]
        return {name: shard for shard in shards for name in shard.entries}


class GgufCheckpoint(Checkpoint):
    """GGUF as a base: tensors are dequantized, and q and k rows are restored to transformers' order."""

    def __init__(self, path: Path, id_: str) -> None:
        """Open the file and check that it has exactly the tensors of its architecture."""
        self.id = id_
        self.path = path
        self.header: Header = read_header(path)
        self.header.check_whole()
        self.architecture = from_header(self.header)
        self.specs = tensor_specs(self.architecture)
        tensors = {tensor.name: (tensor.shape, tensor.type.name) for tensor in self.header.tensors.values()}
        expected = {spec.target: spec.shape for spec in self.specs.values()}
        self._rope = self.header.tensors.keys() & set(self.architecture.family.divisors)
        expected |= dict.fromkeys(self._rope, (self.architecture.rotated // 2,))
        _check_tensors(path, self.architecture.name, tensors, expected, _DEQUANTIZED)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        spec = self.specs[name]
        rows = self._read(spec.target, start, stop)
        if not spec.heads:
            return rows
        heads, part = divmod((stop - start) * spec.heads, spec.shape[0])
        assert not part, f"rows {start} to {stop} of {name} are not whole heads"
        return unpermute(rows, heads)

    def stored_type(self, name: str) -> GGMLQuantizationType:
        return self.header.tensors[self.specs[name].target].type

    def stored_rows(self, name: str, start: int, stop: int) -> bytes | None:
        return self._read_bytes(self.specs[name].target, start, stop).tobytes()

    @property
    def rope_tensors(self) -> dict[str, Floats]:
        return {name: self._read(name, 0, self.header.tensors[name].shape[0]) for name in sorted(self._rope)}

    @property
    def tokenizer(self) -> dict[str, Field]:
        prefixes = ("tokenizer.", "thirteen.tokenizer.")
        return {key: field for key, field in self.header.fields.items() if key.startswith(prefixes)}

    def sha256(self) -> str:
        return file_sha256(self.path)

    def _read(self, target: str, start: int, stop: int) -> Floats:
        tensor = self.header.tensors[target]
        rows = dequantize(self._read_bytes(target, start, stop), tensor.type)
        return np.asarray(rows, np.float32).reshape(stop - start, *tensor.shape[1:])

    def _read_bytes(self, target: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Rows as they are stored, (rows, bytes of a row)."""
        tensor = self.header.tensors[target]
        row_bytes = tensor.nbytes // tensor.shape[0]
        offset = tensor.offset + start * row_bytes
        raw = read_items(self.path, np.dtype(np.uint8), (stop - start) * row_bytes, offset)
        return raw.reshape(stop - start, row_bytes)


def _check_tensors(
    path: Path,
    architecture: str,
    found: Mapping[str, tuple[tuple[int, ...], str]],
    expected: Mapping[str, tuple[int, ...]],
    types: Collection[str],
) -> None:
    """Check that a checkpoint has exactly the expected tensors, in types that can be read."""
    if extra := found.keys() - expected.keys():
        raise FileError(
            f"{path}: has {len(extra)} tensors that {architecture} has not, such as {min(extra)!r}"
        )
    for name, shape in expected.items():
        stored, type_ = found.get(name, ("missing", ""))
        if stored != shape:
            raise FileError(f"{path}: tensor {name!r} is {stored}; the model's configuration says {shape}")
        if type_ not in (readable := types if len(shape) > 1 else _FLOATS):
            raise FileError(f"{path}: tensor {name!r} is {type_}; supported are {', '.join(readable)}")
