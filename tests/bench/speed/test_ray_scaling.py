"""A batch on a local engine and on a cluster: the same answers, and figures for each mode."""

import json
from dataclasses import asdict
from io import StringIO

import pytest
from rich.console import Console
from thirteen.bench.speed import ray_scaling
from thirteen.errors import RequestError

pytestmark = pytest.mark.ray


def test_every_mode_has_figures_and_gives_the_same_answers(tiny):
    ticks = []
    report = ray_scaling.run_ray_scaling(
        tiny,
        "local",
        (2,),
        questions=90,
        max_tokens=6,
        rounds=1,
        progress=lambda done, total: ticks.append((done, total)),
    )
    assert report.same
    assert [(mode.name, mode.workers) for mode in report.ways] == [
        ("one local engine", None),
        ("2 workers", 2),
    ]
    for mode in report.ways:
        assert mode.questions_an_hour == pytest.approx(3600 * 90 / mode.seconds[0])
        assert mode.ratio.estimate == pytest.approx(report.ways[0].seconds[0] / mode.seconds[0])
    assert ticks == [(done, 180) for done in range(1, 181)]
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["threads"] == 1
    console = Console(width=140, file=StringIO())
    console.print(ray_scaling.ray_scaling_table(report))
    assert "the answers are the same" in console.file.getvalue()


def test_numbers_out_of_range_are_refused(tiny):
    with pytest.raises(RequestError, match="bench: questions must be an integer of at least 1"):
        ray_scaling.run_ray_scaling(tiny, "local", (1,), questions=0)
