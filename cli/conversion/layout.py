"""The layout of a file, as `convert`, `plan` and `inspect` print it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...convert.layout import FileLayout


def layout_rows(layout: "FileLayout") -> dict[str, str]:
    """Size, types and prediction by name."""
    rows = {"size": f"{layout.file_bytes:,} bytes, {layout.bits_per_weight:.2f} bits per weight"}
    rows |= {
        f"type {name}": f"{share.tensors} tensors, {share.weights:,} weights, {share.nbytes:,} bytes"
        for name, share in layout.types.items()
    }
    if (predicted := layout.prediction) is None:
        return rows
    divergence = predicted.divergence
    known = (
        "unknown: the importance file has no sensitivities"
        if divergence is None
        else f"{divergence:.4f} nats"
    )
    return rows | {
        "predicted KL": known,
        "predicted speed": f"{predicted.decode_speed:.2f} of uniform Q4_K's "
        f"({predicted.target}, {predicted.library})",
        "planned size": f"{predicted.file_bytes:,} of {predicted.budget_bytes:,} bytes",
    }


def layout_facts(layout: "FileLayout") -> dict[str, Any]:
    """The same for JSON."""
    return {
        "file_bytes": layout.file_bytes,
        "bits_per_weight": layout.bits_per_weight,
        "types": {name: share.tensors for name, share in layout.types.items()},
        "prediction": layout.prediction,
    }
