"""Predictions for several vocabularies, against a plan of each."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from thirteen.convert.file_plan import predict_vocabularies
from thirteen.convert.pipeline import convert, plan_conversion
from thirteen.convert.provenance import SourceIds
from thirteen.convert.quantize.costs import costs_for
from thirteen.convert.quantize.file_size import FileSize
from thirteen.convert.quantize.size_planner import SizeTarget
from thirteen.errors import OutputError

from .vocabulary.kept_lists import closed_list, tables_of

pytestmark = pytest.mark.slow

Base = Callable[[str], Path]


def target(size: int) -> SizeTarget:
    return SizeTarget(FileSize(f"{size}B", size, 1), "quality", costs_for("x86"))


def limits(message: str) -> list[str]:
    """The bytes in a planner's error."""
    return re.findall(r"[\d,]{4,}", message)


@pytest.mark.parametrize("searched", [False, True])
def test_a_plan_has_the_exact_size_of_the_file(
    base: Base, measured: Base, tmp_path: Path, searched: bool
) -> None:
    """The plan measured a header with another type, other names, and without the keys of the scales."""
    importance = measured("llama")
    # So long a text, and so long a name, that the header does not fit its padding by chance.
    size = replace(target(100_000), size=FileSize("100000B" + " " * 40, 100_000, 1))
    inputs = {"ids": SourceIds("a base with a long name " * 3), "threads": 1, "search_scales": searched}
    plan = plan_conversion(base("llama"), size, importance, **inputs)
    report = convert(base("llama"), tmp_path / "a.gguf", quantization=size, importance=importance, **inputs)
    assert plan.prediction == report.prediction
    assert plan.prediction.file_bytes == report.file_bytes


@pytest.mark.parametrize("name", ["llama", "llama untied"])
def test_each_prediction_is_that_of_a_plan(base: Base, measured: Base, name: str, tmp_path: Path) -> None:
    importance = measured(name)
    size = convert(base(name), tmp_path / "a.gguf", quantization="Q5_0").file_bytes
    tables = tables_of(base(name))
    lists = [closed_list(tables, [261]), closed_list(tables, [261, 265]), None]
    predicted = predict_vocabularies(base(name), target(size), importance, lists, threads=1)
    for kept, loss in zip(lists, predicted, strict=True):
        plan = plan_conversion(base(name), target(size), importance, vocabulary=kept, threads=1)
        assert loss == pytest.approx(plan.prediction.divergence, rel=1e-6)
    for impossible, kept in ((1000, lists[0]), (100_000_000, None)):  # the limit is theirs
        messages = []
        for predict in (
            lambda size: predict_vocabularies(base(name), size, importance, lists, threads=1),
            lambda size, kept=kept: plan_conversion(base(name), size, importance, vocabulary=kept, threads=1),
        ):
            with pytest.raises(
                OutputError, match=r"the smallest file possible has [\d,]+ .* the larg"
            ) as found:
                predict(target(impossible))
            messages.append(str(found.value))
        assert limits(messages[0]) == limits(messages[1])
