"""The memory roofline. Nothing here depends on the speed of the machine."""

from math import isfinite

import pytest
from thirteen.bench.harness.interleave import PairedMeasurement
from thirteen.bench.memory.roofline import decode_bytes, find_roofline, measure_read_bandwidth
from thirteen.files.gguf.header import read_header
from thirteen.stats.interval import Interval

from ...runtime.conftest import tensors, write_gguf

SPEEDS = PairedMeasurement("tokens/s", (), (), 100.0, 160.0, Interval(1, 1.6, 2))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bandwidth_is_measured_with_any_number_of_threads(threads):
    bandwidth = measure_read_bandwidth(threads, nbytes=1 << 16, repeats=2)
    assert bandwidth > 0 and isfinite(bandwidth)


def test_the_fraction_is_that_of_the_bandwidth_that_reads_of_weights_take():
    roofline = find_roofline(20e9, 60, (100_000_000, 50_000_000), SPEEDS)
    assert (roofline.base_fraction, roofline.adapted_fraction) == (0.5, 0.4)
    assert roofline.describe(2) == (
        "2 threads read 20.0 GB/s from memory; a decoded token reads weights of 100.0 and 50.0 MB"
    )


def test_decode_reads_the_embedding_only_if_it_is_the_output_matrix(tiny, tmp_path):
    embedding = tensors()["token_embd.weight"]
    tied = read_header(tiny)
    untied = read_header(write_gguf(tmp_path / "untied.gguf", {}, {"output.weight": embedding}))
    assert decode_bytes(tied) == sum(tensor.nbytes for tensor in tied.tensors.values())
    assert decode_bytes(untied) == decode_bytes(tied)
    assert sum(tensor.nbytes for tensor in untied.tensors.values()) == decode_bytes(tied) + embedding.nbytes
