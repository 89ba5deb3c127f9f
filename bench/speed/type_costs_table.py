"""The table of the costs of types."""

from collections.abc import Iterator

from ...quality.costs.type_costs import TypesReport, WeightCost
from ...stats.paired_ratio import NOISE_MAX, RATIO_LEVEL
from ..harness.format import Table


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
        tuple(_notes(report)),
    )


def _cells(cost: WeightCost) -> tuple[str, str, str]:
    return f"{cost.ns_per_weight:.4f}", cost.ratio.text(2), f"{cost.gb_per_s:.1f}"


def _notes(report: TypesReport) -> Iterator[str]:
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
