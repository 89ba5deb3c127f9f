"""Whether the measurements of a report are of the same file and run-time adapter, by their hashes."""

from collections.abc import Iterator
from pathlib import Path

from .collect import ReportData

_Files = dict[str, tuple[str, str]]  # path and hash by measurement


def describe_differences(data: ReportData) -> Iterator[str]:
    """A warning if the adapted model of the measurements differs, and one if its run-time adapter does.

    Size and fidelity are of the file without a run-time adapter. The report of the peers has no hash.
    """
    models: _Files = {}
    adapters: _Files = {}
    if data.latency:
        model = data.latency.adapted
        models["latency"] = model.path, model.sha256
        adapters["latency"] = (model.adapter.path, model.adapter.sha256) if model.adapter else ("none", "")
    if data.accuracy:
        result = data.accuracy.adapted
        models["accuracy"] = result.path, result.sha256
        adapters["accuracy"] = result.adapter or "none", result.adapter_sha256 or ""
    if data.size:
        models["size"] = data.size.path, data.size.sha256
    if data.fidelity:
        shipped = data.fidelity.files.shipped
        models["fidelity"] = shipped.path, shipped.sha256
    for what, files in (("models", models), ("run-time adapters", adapters)):
        if len({sha256 for _, sha256 in files.values()}) > 1:
            names = ", ".join(f"{name} of {_describe(*file)}" for name, file in files.items())
            yield f"warning: the measurements are of different {what}: {names}"


def _describe(path: str, sha256: str) -> str:
    return f"{Path(path).name} (sha256 {sha256[:12]})" if sha256 else path
