"""The models of a fidelity measurement by role, loaded together, with one vocabulary or a part of it."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import RequestError
from ...files.gguf.header import read_header
from ...runtime.engine.engine import Engine
from .text_logits import load_for_logits
from .token_map import TokenMap, check_same_vocabulary

# The adapted model and the unadapted one in full precision, both quantized alike, and the quantized unadapted
# one with the adapter at run time.
Role = Literal["reference", "base", "shipped", "shipped_base", "run_time"]
VARIANTS: tuple[Role, ...] = ("shipped", "run_time")  # the ways to ship the adapter: merged, at run time


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model file, and the adapter that is applied to it at run time."""

    model: Path
    adapter: Path | None = None


def model_sources(
    reference: Path,
    shipped: Path,
    *,
    base: Path | None = None,
    shipped_base: Path | None = None,
    adapter: Path | None = None,
) -> dict[Role, ModelSource]:
    """Assign GGUF files to the roles.

    Args:
        reference: the adapted model in full precision.
        shipped: the same model quantized, with the adapter merged.
        base: the unadapted model in full precision. With `shipped_base`, the adapter's effect is measured.
        shipped_base: the unadapted model, quantized like `shipped`.
        adapter: a LoRA for `shipped_base`, to compare merging with applying it at run time.

    Raises:
        RequestError: a file is missing that another one needs.
    """
    check_roles(base, shipped_base, adapter)
    models: dict[Role, ModelSource] = {"reference": ModelSource(reference), "shipped": ModelSource(shipped)}
    if base and shipped_base:
        models |= {"base": ModelSource(base), "shipped_base": ModelSource(shipped_base)}
        if adapter:
            models["run_time"] = ModelSource(shipped_base, adapter)
    return models


def check_roles(base: object, shipped_base: object, adapter: object) -> None:
    """Refuse files that need one that is not given; None stands for one that is not.

    Raises:
        RequestError: a file is missing that another one needs.
    """
    if (base is None) != (shipped_base is None):
        given, missing = ("base", "shipped base") if shipped_base is None else ("shipped base", "base")
        raise RequestError(
            f"bench fidelity: a {given} is given but no {missing}; the adapter's effect needs both"
        )
    if shipped_base is None and adapter is not None:
        raise RequestError(
            f"bench fidelity: {adapter}: an adapter is given, but no shipped base to apply it to"
        )


def load_models(
    models: dict[Role, ModelSource], threads: int | None, handles: ExitStack
) -> tuple[dict[Role, Engine], dict[Role, TokenMap]]:
    """Load the models, and compare their vocabularies; `handles` closes them.

    Roles with the same source share an engine.

    Raises:
        FileError: a file is not a GGUF, is damaged, cannot be run by this build, or has tokens that the
            reference lacks; the adapter does not fit its model.
        RequestError: the number of threads is out of range.
    """
    maps, loaded = token_maps(models), dict[ModelSource, Engine]()
    for role, source in models.items():
        if source not in loaded:
            engine = load_for_logits(source.model, threads, source.adapter, expansion=maps[role].expansion)
            loaded[source] = handles.enter_context(engine)
    return {role: loaded[source] for role, source in models.items()}, maps


def token_maps(models: dict[Role, ModelSource]) -> dict[Role, TokenMap]:
    """Compare the vocabularies: a shipped file may keep a part of the reference's, the base has all of it.

    Raises:
        FileError: a file has other tokens than the reference, or the shipped files differ.
    """
    headers = {
        role: read_header(source.model, skip_values=("tokenizer.ggml.merges",))
        for role, source in models.items()
    }
    if "base" in headers:
        check_same_vocabulary(headers["reference"], headers["base"])
        check_same_vocabulary(headers["shipped"], headers["shipped_base"])
    return {role: TokenMap(headers["reference"], header) for role, header in headers.items()}
