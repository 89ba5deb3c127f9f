"""A tuned model: what was the fastest is used by the engines that follow."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from thirteen.bench.tune import timed_ways, tune_engine, way_name
from thirteen.errors import RequestError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.defaults import Way, find_tuned, tuned_file
from thirteen.runtime.engine.engine import Engine

from ..runtime.conftest import typed, write_gguf
from ..runtime.tiny_decoders import write_decoder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", pytest.param("mamba", marks=pytest.mark.exhaustive)])
def test_each_way_is_timed_and_one_is_kept(name: str, tmp_path: Path) -> None:
    """Also of a model whose state cannot go back."""
    path, steps = write_decoder(tmp_path / "a.gguf", name), list[tuple[int, int]]()
    report = tune_engine(path, progress=lambda *step: steps.append(step))
    names = [way.name for way in report.ways]
    assert {"llama.cpp, flash attention, f16", "llama.cpp, standard attention, f16"} <= set(names)
    assert report.ways[0].ratio.low == report.ways[0].ratio.high == 1
    assert all(way.prefill > 0 and way.decode > 0 and way.together > 0 for way in report.ways)
    assert len(report.table().rows) == len(names)
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert find_tuned(read_header(path)) == report.chosen
    assert ("the default stays" in report.verdict[0]) == (way_name(report.chosen) == names[0])


def test_engines_use_what_was_kept_unless_something_else_is_given(tiny: Path) -> None:
    tuned_file(read_header(tiny)).write_text(json.dumps(asdict(Way(flash_attention=False, threads=3))))
    for given, expected in (
        ({}, (False, "f16", 3, True)),
        ({"flash_attention": True, "threads": 1}, (True, "f16", 1, False)),
    ):
        with Engine(tiny, **given) as engine:
            settings = engine.plan.settings
            found = settings.flash_attention, settings.kv, settings.threads, settings.adaptive_threads
            assert found == expected
    tuned_file(read_header(tiny)).write_text('{"library": 1, "speed": 2}')  # of another version
    assert find_tuned(read_header(tiny)) is None


def test_a_ratio_is_of_ordinary_questions_alone_and_at_once() -> None:
    seconds = np.array([[[0.2, 0.01, 0.02], [0.4, 0.02, 0.04]]] * 8)
    first, second = timed_ways(["a", "b"], seconds)
    assert (first.prefill, first.decode, first.together) == pytest.approx((1000, 100, 200))
    assert second.ratio.estimate == pytest.approx(2)


def test_models_that_answer_no_such_question_are_refused(tmp_path: Path) -> None:
    short = {"llama.context_length": typed(128)}
    with pytest.raises(RequestError, match="only models that answer questions of 200 tokens are tuned"):
        tune_engine(write_gguf(tmp_path / "short.gguf", short, {}))
