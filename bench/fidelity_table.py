"""The table of a fidelity report."""

from collections.abc import Iterator
from pathlib import Path

from ..quality.fidelity.fidelity import FidelityReport, fidelity_rows, shipped_variants
from ..quality.fidelity.model_roles import VARIANTS
from .harness.format import Table


def fidelity_table(report: FidelityReport) -> Table:
    """Tabulate the variants, with the verdict and the environment below."""
    title = " vs ".join(Path(report.files[role].path).name for role in ("shipped", "reference"))
    columns = ["shipped (95 %)", "adapter at run time (95 %)"][: len(shipped_variants(report))]
    return Table(title, ("", *columns), (*fidelity_rows(report), *_file_rows(report)), tuple(_notes(report)))


def _file_rows(report: FidelityReport) -> Iterator[tuple[str, ...]]:
    files = [report.files[role] for role in VARIANTS if role in report.files]
    yield "files, MB", *(f"{file.total_bytes / 1e6:.1f}" for file in files)
    yield "bits per weight", *(f"{file.bits_per_weight:.2f}" for file in files)


def _notes(report: FidelityReport) -> Iterator[str]:
    reference = report.files["reference"]
    yield from report.verdict
    yield f"{report.positions:,} positions of {report.passages} texts in {Path(report.data).name}"
    yield (
        f"reference: {reference.bits_per_weight:.2f} bits per weight, "
        f"perplexity {report.merged.divergence.reference_perplexity.text(2)}"
    )
    yield f"{report.machine.cpu}, llama-cpp-python {report.build.llama_cpp_python}"
