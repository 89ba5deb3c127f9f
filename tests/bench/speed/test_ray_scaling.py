"""A batch here beside one on a cluster: the same answers, and a figure for each way."""

import json
from dataclasses import asdict
from io import StringIO

import pytest
from rich.console import Console
from thirteen.bench.speed import ray_scaling
from thirteen.errors import RequestError


def test_every_way_has_its_figures_and_gives_the_same_answers(tiny):
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
    assert [(way.name, way.workers) for way in report.ways] == [
        ("here, one engine", None),
        ("2 workers", 2),
    ]
    for way in report.ways:
        assert way.questions_an_hour == pytest.approx(3600 * 90 / way.seconds[0])
        assert way.ratio.estimate == pytest.approx(report.ways[0].seconds[0] / way.seconds[0])
    assert ticks == [(done, 180) for done in range(1, 181)]
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["threads"] == 1
    console = Console(width=140, file=StringIO())
    console.print(ray_scaling.ray_scaling_table(report))
    assert "the answers are the same" in console.file.getvalue()


def test_numbers_out_of_bounds_are_refused(tiny):
    with pytest.raises(RequestError, match="bench: questions must be a whole number from 1"):
        ray_scaling.run_ray_scaling(tiny, "local", (1,), questions=0)
