"""Tables of what quality/ measures: fidelity, and the costs of types."""

from collections.abc import Iterator
from pathlib import Path

from ..quality.costs.type_costs import TypesReport, WeightCost
from ..quality.fidelity.fidelity import FidelityReport, fidelity_rows, shipped_variants
from ..quality.fidelity.model_roles import VARIANTS
from ..stats.paired_ratio import NOISE_MAX, RATIO_LEVEL
from .harness.format import Table


def fidelity_table(report: FidelityReport) -> Table:
    """Tabulate the variants, with the verdict and the environment below."""
    title = " vs ".join(Path(report.files[role].path).name for role in ("shipped", "reference"))
    columns = ["shipped (95 %)", "adapter at run time (95 %)"][: len(shipped_variants(report))]
    return Table(
        title, ("", *columns), (*fidelity_rows(report), *_file_rows(report)), tuple(_fidelity_notes(report))
    )


def _file_rows(report: FidelityReport) -> Iterator[tuple[str, ...]]:
    files = [report.files[role] for role in VARIANTS if role in report.files]
    yield "files, MB", *(f"{file.total_bytes / 1e6:.1f}" for file in files)
    yield "bits per weight", *(f"{file.bits_per_weight:.2f}" for file in files)


def _fidelity_notes(report: FidelityReport) -> Iterator[str]:
    reference = report.files["reference"]
    yield from report.verdict
    yield f"{report.positions:,} positions of {report.passages} texts in {Path(report.data).name}"
    yield (
        f"reference: {reference.bits_per_weight:.2f} bits per weight, "
        f"perplexity {report.merged.divergence.reference_perplexity.text(2)}"
    )
    yield f"{report.machine.cpu}, llama-cpp-python {report.build.llama_cpp_python}"


def type_costs_table(report: TypesReport) -> Table:
    """Tabulate the types, from the fastest in layers to the slowest, with the environment below."""
    ratio = f"/ Q4_K ({RATIO_LEVEL})"
    rows = (
        (
            cost.type,
            f"{cost.bits_per_weight:.2f}",
            *_cells(cost.layer),
            *_cells(cost.output),
            cost.layer_prefill.ratio.text(2),
        )
        for cost in sorted(report.costs, key=lambda cost: cost.layer.ns_per_weight)
    )
    return Table(
        "Cost of a weight: ns in decode, ratio to Q4_K (less is faster), GB/s of weights",
        (
            *("type", "bits", "layer", ratio, "GB/s", "output", ratio, "GB/s"),
            f"prefill of {report.settings.prompt_tokens}",
        ),
        tuple(rows),
        tuple(_cost_notes(report)),
    )


def _cells(cost: WeightCost) -> tuple[str, str, str]:
    return f"{cost.ns_per_weight:.4f}", cost.ratio.text(2), f"{cost.gb_per_s:.1f}"


def _cost_notes(report: TypesReport) -> Iterator[str]:
    workload = report.settings
    if report.noisy:
        yield (
            f"too noisy (intervals of more than ±{NOISE_MAX:.0%}): {', '.join(report.noisy)}; take more "
            "rounds, or stop other programs"
        )
    yield f"by {report.engine}; both repacked where it can; output: tied to the token embedding"
    yield (
        f"medians of {report.rounds} rounds, {workload.prompt_tokens} prompt and {workload.decode_tokens} "
        "decode tokens in an iteration"
    )
    yield report.environment(workload.threads)
