"""A trained PEFT adapter as low-rank factors: B (out, r) and A (r, in) in float32 for each base tensor.

LoRA is arXiv 2106.09685, rsLoRA 2312.03732, DoRA 2402.09353, TinyLoRA 2602.04118. Kinds without such factors
are merged by PEFT itself: see peft_merge.py.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AdapterError
from .architecture import TensorSpec, module_order
from .checkpoint import Checkpoint
from .json_file import read_json
from .safetensors_file import Rows, SafetensorsFile
from .torch_random import normal

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_MODULE = re.compile(
    r"base_model\.model\.(?P<module>.+?)\."
    r"(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|tinylora_[ABP]|base_layer)"
    r"(\.weight)?"
)
_VECTOR = re.compile(r"base_model\.tinylora_v\.(0|[1-9][0-9]{0,5})")
_REDRAWN_MAX = 1 << 28  # numbers in one module's projections; published adapters have some hundreds

# What makes an adapter one that no merge into a single set of weights can honour.
_NEVER = {
    "modules_to_save": "it replaces whole modules",
    "trainable_token_indices": "it retrains single tokens",
    "target_parameters": "it adapts bare parameters",
    "layer_replication": "it repeats layers",
    "alora_invocation_tokens": "it only acts after certain tokens",
    "arrow_config": "it routes between adapters",
}
# LoRA settings that change the delta, or the base under it, in ways only PEFT knows.
_FOREIGN = (
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
    "velora_config",
    "lora_bias",
    "fan_in_fan_out",
)
_FOREIGN_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")  # these also change the base


@dataclass(frozen=True)
class Delta:
    """What the adapter does to one tensor: W + B·A, scaled into B; with DoRA, rows scaled to `magnitude`."""

    b: Rows  # (out, r)
    a: Rows  # (r, in)
    magnitude: Rows | None = None  # (out,)

    def merge(self, rows: Rows, start: int) -> Rows:
        """Add the delta in place to rows `start`… of the base tensor, (n, in)."""
        part = slice(start, start + len(rows))
        rows += self.b[part] @ self.a
        if self.magnitude is not None:
            norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
            rows *= (self.magnitude[part] / norms).astype(np.float32)[:, None]
        return rows

    @property
    def rank(self) -> int:
        """The inner dimension of the factors."""
        return len(self.a)

    @cached_property
    def norm(self) -> float:
        """The Frobenius norm of B·A, by the r x r Gram matrices; DoRA's rescaling is left out."""
        b, a = self.b.astype(np.float64), self.a.astype(np.float64)
        return float(np.sqrt(max(float(np.sum((b.T @ b) * (a @ a.T))), 0.0)))

    def rescales(self, rows: Rows) -> bool:
        """Whether DoRA's magnitudes are other than the norms of the base tensor's `rows`, (out, in)."""
        return self.magnitude is not None and not np.allclose(self.magnitude, np.linalg.norm(rows, axis=1))


@dataclass(frozen=True)
class Adapter:
    """A trained adapter, ready to merge."""

    id: str  # the adapter as the user named it
    kind: str  # lora, rslora, dora or tinylora
    trained: int  # how many numbers training moved
    trained_on: str | None  # the base, as the adapter's own config names it
    sha256: str
    deltas: dict[str, Delta]  # by the name of the base tensor
    copies: dict[str, Rows]  # base tensors that PEFT saved along with the adapter
    targets: tuple[str, ...]  # what the names of its modules end with; empty = not known

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(delta.rank for delta in self.deltas.values())

    @property
    def zeros(self) -> list[str]:
        """Tensors that are named but not changed."""
        return [name for name, delta in self.deltas.items() if delta.norm == 0 and delta.magnitude is None]

    def fit(self, base: Checkpoint) -> None:
        """Check that every delta has a tensor of its shape in `base`, and every targeted tensor a delta.

        Raises:
            AdapterError: a tensor that the base lacks, shares (tied embeddings) or has in another shape; a
                delta that is missing; or none that changes anything.
        """
        for name, delta in self.deltas.items():
            shape = _target(base, self.id, name).shape
            out, columns = len(delta.b), delta.a.shape[1]
            if shape != (out, columns):
                raise AdapterError(
                    f"{self.id}: the delta of {name!r} is ({out}, {columns}), the base's tensor {shape}: "
                    "it was trained on another model"
                )
        for name, rows in self.copies.items():
            shape = _target(base, self.id, name).shape
            if rows.shape != shape or not np.array_equal(rows, base.rows(name, 0, shape[0])):
                raise AdapterError(f"{self.id}: it carries a copy of {name!r} that differs from the base's")
        ends = tuple(f".{target}.weight" for target in self.targets)
        missing = [name for name in base.specs if f".{name}".endswith(ends) and name not in self.deltas]
        if missing:
            raise AdapterError(
                f"{self.id}: its target_modules take in {missing[0]!r}, but that delta is missing"
            )
        if not any(d.norm or d.rescales(base.rows(name, 0, len(d.b))) for name, d in self.deltas.items()):
            raise AdapterError(f"{self.id}: every delta is zero: it changes nothing")


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's adapter_config.json, checked for what no merge can honour.

    Raises:
        AdapterError: not a PEFT folder, weights only as a pickle, or settings that cannot be merged.
    """
    if not (folder / CONFIG).is_file():
        raise AdapterError(f"{folder}: not a PEFT adapter: {CONFIG} is missing")
    config = read_json(folder / CONFIG, AdapterError)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        hint = (
            "; adapter_model.bin is a pickle, which can run code: save it as safetensors" if pickled else ""
        )
        raise AdapterError(f"{folder}: {WEIGHTS} is missing{hint}")
    for key, why in _NEVER.items():
        if config.get(key):
            raise AdapterError(f"{folder / CONFIG}: {key} is set: {why}, which cannot be merged")
    return config


def foreign_reason(config: Mapping[str, Any]) -> str | None:
    """Why this adapter's merge is PEFT's own to do, or None where the factors say all."""
    kind = config.get("peft_type")
    if kind == "TINYLORA":
        return f"bias is {config['bias']!r}" if config.get("bias", "none") != "none" else None
    if kind != "LORA":
        return f"its kind is {kind}"
    if config.get("bias", "none") != "none":
        return f"bias is {config['bias']!r}"
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_FOREIGN_STARTS):
        return f"init_lora_weights is {start!r}, which changes the base"
    return next((f"{key} is set" for key in _FOREIGN if config.get(key)), None)


def load_adapter(folder: Path, id_: str = "") -> Adapter:
    """The adapter in a PEFT `folder`, its scale folded into B; `id_` is how the user named it.

    Raises:
        AdapterError: damaged, incomplete, not finite, all zero, or of a kind without low-rank factors.
    """
    config = read_config(folder)
    if reason := foreign_reason(config):
        raise AdapterError(
            f"{folder}: {reason}: no low-rank factors to read; only a merge by PEFT is possible"
        )
    file = SafetensorsFile(folder / WEIGHTS, AdapterError)
    parts, vectors = _sort_keys(file)
    copies = {
        f"{module}.weight": found.pop("base_layer")
        for module, found in parts.items()
        if "base_layer" in found
    }
    parts = {module: found for module, found in parts.items() if found}
    if not parts:
        raise AdapterError(f"{folder / WEIGHTS}: no adapter weights in it")
    read = _tinylora if config["peft_type"] == "TINYLORA" else _lora
    with np.errstate(all="ignore"):  # what overflows here is found by its norm
        deltas, kind = read(folder, config, parts, vectors)
        for module, delta in deltas.items():
            if not delta.norm < np.finfo(np.float32).max:
                raise AdapterError(f"{folder}: the delta of {module!r} is not finite")
    trained = sum(vector.size for vector in vectors.values()) or sum(
        part.size for found in parts.values() for part in found.values()
    )
    adapter = Adapter(
        id=id_ or folder.resolve().name,
        kind=kind,
        trained=trained,
        trained_on=config.get("base_model_name_or_path"),
        sha256=folder_sha256(folder),
        deltas={f"{module}.weight": delta for module, delta in deltas.items()},
        copies=copies,
        targets=_targets(config),
    )
    if len(adapter.zeros) == len(adapter.deltas):
        raise AdapterError(f"{adapter.id}: every delta is zero: it changes nothing")
    return adapter


def norms_by_layer(adapter: Adapter) -> dict[str, float]:
    """The Frobenius norm of everything an adapter adds, by layer (`layer 0`, …) or module outside them."""
    squares: dict[str, float] = {}
    for name, delta in adapter.deltas.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        place = f"layer {int(layer[1])}" if layer else name.removesuffix(".weight")
        squares[place] = squares.get(place, 0.0) + delta.norm**2
    ordered = sorted(
        squares, key=lambda place: (place.split()[0], int(place.split()[1]) if " " in place else 0)
    )
    return {place: math.sqrt(squares[place]) for place in ordered}


Parts = dict[str, dict[str, Rows]]  # by module, then by the part's name
Vectors = dict[int, Rows]  # TinyLoRA's trained vectors by group


def _sort_keys(file: SafetensorsFile) -> tuple[Parts, Vectors]:
    """The parts by module, in the order of the base's modules, and TinyLoRA's vectors."""
    parts: Parts = {}
    vectors: Vectors = {}
    orders = {}
    for key in file.entries:
        rows = file.rows(key)
        if not np.isfinite(rows).all():
            raise AdapterError(f"{file.path}: {key!r} holds a value that is not finite")
        if vector := _VECTOR.fullmatch(key):
            vectors[int(vector[1])] = rows
        elif (found := _MODULE.fullmatch(key)) and (order := module_order(found["module"])):
            orders[found["module"]] = order
            if parts.setdefault(found["module"], {}).setdefault(found["part"], rows) is not rows:
                raise AdapterError(f"{file.path}: {key!r} stands twice, with and without '.weight'")
        else:
            raise AdapterError(
                f"{file.path}: the key {key!r} cannot be honoured: no supported model has such a part"
            )
    return {module: parts[module] for module in sorted(parts, key=lambda module: orders[module])}, vectors


def _targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that PEFT looks for in all layers; none where the config has a pattern or leaves some out."""
    names = config.get("target_modules")
    limited = any(config.get(key) is not None for key in ("layers_to_transform", "exclude_modules"))
    return tuple(map(str, names)) if isinstance(names, list) and not limited else ()


def _lora(folder: Path, config: Mapping[str, Any], parts: Parts, _: Vectors) -> tuple[dict[str, Delta], str]:
    wants_dora = bool(config.get("use_dora"))
    deltas = {}
    for module, found in parts.items():
        embedding = "lora_embedding_A" in found
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        a, b, *magnitude = _take(
            folder, module, found, (*names, *(("lora_magnitude_vector",) if wants_dora else ()))
        )
        if embedding:  # saved the other way round: (r, vocab) and (hidden, r)
            a, b = b.T, a.T
        _check_factors(folder, module, a, b)
        scaled = (b * np.float32(_scale(folder, config, module, len(a)))).astype(np.float32)
        if magnitude and magnitude[0].shape != (len(b),):
            raise AdapterError(
                f"{folder}: the magnitude of {module!r} is {magnitude[0].shape}, not ({len(b)},)"
            )
        deltas[module] = Delta(scaled, a, *magnitude)
    return deltas, "dora" if wants_dora else "rslora" if config.get("use_rslora") else "lora"


def _tinylora(
    folder: Path, config: Mapping[str, Any], parts: Parts, vectors: Vectors
) -> tuple[dict[str, Delta], str]:
    """W + B (sum_i v_i P_i) A; modules are numbered, and grouped, in the order of the base's modules."""
    saved = any("tinylora_P" in found for found in parts.values())
    tying = config.get("weight_tying", 0.0)
    if not isinstance(tying, int | float) or not 0 <= tying <= 1:
        raise AdapterError(f"{folder / CONFIG}: weight_tying is {tying!r}, not between 0 and 1")
    groups = max(1, round(len(parts) * (1.0 - tying)))
    size = max(1, len(parts) // groups)
    used = {module: min(index // size, groups - 1) for index, module in enumerate(parts)}
    if set(used.values()) != set(vectors):
        raise AdapterError(
            f"{folder}: {len(vectors)} trained vectors for {len(set(used.values()))} groups of modules"
        )
    u, r = config.get("u"), config.get("r")
    deltas = {}
    for index, (module, found) in enumerate(parts.items()):
        names = ("tinylora_A", "tinylora_B", *(("tinylora_P",) if saved else ()))
        a, b, *projection = _take(folder, module, found, names)
        _check_factors(folder, module, a, b)
        _check_rank(folder, module, len(a), min(r, len(b), a.shape[1]) if type(r) is int else r)
        vector = vectors[used[module]]  # (u,)
        if vector.shape != (u,):
            raise AdapterError(
                f"{folder}: the vector of {module!r} is {vector.shape}, but {CONFIG} says u = {u!r}"
            )
        shape = (vector.size, len(a), len(a))
        p = projection[0] if saved else _redrawn(folder, config, index, shape)
        if p.shape != shape:
            raise AdapterError(f"{folder}: the projections of {module!r} are {p.shape}, not {shape}")
        deltas[module] = Delta(b @ np.einsum("i,ijk->jk", vector, p), a)
    return deltas, "tinylora"


def _redrawn(folder: Path, config: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> Rows:
    seed = config.get("projection_seed")
    if type(seed) is not int or seed < 0:
        raise AdapterError(f"{folder / CONFIG}: projections are not saved, and projection_seed is {seed!r}")
    if math.prod(shape) > _REDRAWN_MAX:
        raise AdapterError(f"{folder}: projections of {shape} are more than {_REDRAWN_MAX:,} numbers")
    return normal(seed + index, 1.0 / math.sqrt(shape[-1]), shape)


def _take(folder: Path, module: str, found: Mapping[str, Rows], names: tuple[str, ...]) -> list[Rows]:
    if set(found) != set(names):
        raise AdapterError(
            f"{folder}: {module!r} has {', '.join(sorted(found))}; expected {', '.join(names)}"
        )
    return [found[name] for name in names]


def _check_factors(folder: Path, module: str, a: Rows, b: Rows) -> None:
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0] or 0 in a.shape + b.shape:
        raise AdapterError(f"{folder}: the factors of {module!r} do not fit: B is {b.shape}, A is {a.shape}")


def _check_rank(folder: Path, module: str, rank: int, expected: Any) -> None:
    if rank != expected:
        raise AdapterError(f"{folder}: {module!r} has rank {rank}, but {CONFIG} says {expected!r}")


def _scale(folder: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """What B·A is multiplied by: alpha / r, or alpha / sqrt(r) for rsLoRA."""
    _check_rank(folder, module, rank, _by_pattern(folder, config, "rank_pattern", module, config.get("r")))
    alpha = _by_pattern(folder, config, "alpha_pattern", module, config.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e38:
        raise AdapterError(f"{folder / CONFIG}: lora_alpha is {alpha!r} for {module!r}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(folder: Path, config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{folder / CONFIG}: {key} is not an object")
    for pattern, value in patterns.items():
        # A stranger's pattern must not be able to backtrack for ever: few repeats, one group, not repeated.
        repeats, groups = len(re.findall(r"[*+{?]", pattern)), pattern.count("(")
        if repeats > 3 or groups > 1 or re.search(r"\)[*+{]", pattern):
            raise AdapterError(f"{folder / CONFIG}: the {key} {pattern!r} is too intricate")
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except (re.error, OverflowError) as failure:
            raise AdapterError(f"{folder / CONFIG}: the {key} {pattern!r} is no pattern: {failure}") from None
    return default


def _target(base: Checkpoint, id_: str, name: str) -> TensorSpec:
    if base.architecture.tied and name in ("lm_head.weight", "model.embed_tokens.weight"):
        raise AdapterError(f"{id_}: a delta of {name!r}, but this base ties its embedding and its output")
    if name not in base.specs:
        raise AdapterError(f"{id_}: the base has no tensor {name!r}")
    return base.specs[name]


def folder_sha256(folder: Path) -> str:
    """One hash of an adapter's two files, so that a changed alpha shows as much as a changed weight."""
    both = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        both.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return both.hexdigest()
