"""Attention sweep: every way, number of sequences and depth has its speed."""

from itertools import product

import pytest
from rich.console import Console
from thirteen.bench.speed.attention_sweep import WAYS, attention_table, run_attention_sweep
from thirteen.errors import ModelFileError, RequestError

pytestmark = pytest.mark.slow


def test_every_way_is_measured_at_every_depth(tiny):
    seen = []
    report = run_attention_sweep(
        tiny, depths=(40, 0, 40), sequences=(1, 3), threads=1, progress=lambda done, total: seen.append(done)
    )
    found = [(speed.sequences, speed.depth, speed.way) for speed in report.speeds]
    ways = WAYS[:3]  # the heads of the model are narrower than a block of q8_0
    assert found == list(product((1, 3), (0, 40), ways))
    for speed in report.speeds:
        assert speed.decode > 0
        assert (speed.prefill is None) == (speed.prefill_ratio is None) == (speed.depth == 0)
        if speed.way is WAYS[0]:
            assert speed.decode_ratio.estimate == 1
    assert seen == list(range(1, 2 * 9 * len(ways) + 1))
    console = Console(width=160)
    with console.capture() as capture:
        console.print(attention_table(report))
    assert all(way.name in capture.get() for way in ways)


@pytest.mark.parametrize(
    "options",
    [
        {"rounds": 7},
        {"depths": ()},
        {"depths": (-1,)},
        {"sequences": ()},
        {"sequences": (0,)},
        {"depths": (1 << 20,)},
    ],
)
def test_bad_numbers_are_rejected(tiny, options):
    with pytest.raises(RequestError):
        run_attention_sweep(tiny, threads=1, **options)


def test_a_bad_file_is_rejected(not_a_model):
    with pytest.raises(ModelFileError):
        run_attention_sweep(not_a_model, threads=1)
