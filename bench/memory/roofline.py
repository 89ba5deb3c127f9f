"""Memory roofline: the decode speed at which reading the weights would take all of the memory bandwidth.

A decoded token reads every weight once, and computes little with each. So decode cannot be faster than memory
bandwidth over the bytes of the weights, unless a cache holds a good part of them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ...files.gguf.header import Header
from ..harness.interleave import PairedMeasurement

BUFFER_BYTES = 1 << 28  # larger than the caches that the cores of one process share
REPEATS = 20  # 10 to 30 ms each


@dataclass(frozen=True, slots=True)
class Roofline:
    """How close decode comes to the memory roofline.

    Attributes:
        bandwidth: bytes that the same number of threads read per second.
        depth: prompt tokens before the decoded ones. The bytes of the KV cache, which grow with it, are not
            counted.
        base_bytes: bytes of weights that a decoded token of the base reads.
        adapted_bytes: those of the adapted model, with its run-time adapter.
        base_fraction: bytes of weights that the base reads per second of decode, over `bandwidth`. It can
            exceed 1 if a cache holds a good part of the weights.
        adapted_fraction: the same of the adapted model.
    """

    bandwidth: float
    depth: int
    base_bytes: int
    adapted_bytes: int
    base_fraction: float
    adapted_fraction: float

    def describe(self, threads: int) -> str:
        """Say what the roofline is made of, for the caption of a table."""
        base, adapted = (f"{nbytes / 1e6:.1f}" for nbytes in (self.base_bytes, self.adapted_bytes))
        return (
            f"{threads} threads read {self.bandwidth / 1e9:.1f} GB/s from memory; "
            f"a decoded token reads weights of {base} and {adapted} MB"
        )


def measure_read_bandwidth(threads: int, nbytes: int = BUFFER_BYTES, repeats: int = REPEATS) -> float:
    """Measure the bytes per second at which threads read memory, each a part of one buffer.

    It is the read loop of J. McCalpin's STREAM. The best of all repeats counts: other programs only ever slow
    a repeat down.

    Args:
        threads: number of threads, each with an equal part.
        nbytes: size of the buffer, at least 8 bytes per thread.
        repeats: number of passes over the buffer.
    """
    # A sum of integers: NumPy adds vectors of them faster than memory delivers them, without Python's lock;
    # none of its reductions reached more. Sums of floats reached less, as an addition waits for the one
    # before, and BLAS's dot product starts threads of its own. Not zeros: until they are written, they are
    # one page.
    parts = np.array_split(np.ones(nbytes // 8, np.uint64), threads)
    with ThreadPoolExecutor(threads) as pool:
        return nbytes / min(_pass_s(pool, parts) for _ in range(repeats))


def _pass_s(pool: ThreadPoolExecutor, parts: Sequence[np.ndarray]) -> float:
    start = perf_counter()
    for _ in pool.map(np.add.reduce, parts):
        pass
    return perf_counter() - start


def find_roofline(bandwidth: float, depth: int, nbytes: Sequence[int], decode: PairedMeasurement) -> Roofline:
    """Relate decode speeds to the bandwidth.

    Args:
        bandwidth: bytes per second.
        depth: prompt tokens before the decoded ones.
        nbytes: bytes of weights that a decoded token reads, of base and adapted model.
        decode: tokens per second of both.
    """
    base_bytes, adapted_bytes = nbytes
    base = base_bytes * decode.base_median / bandwidth
    return Roofline(
        bandwidth, depth, base_bytes, adapted_bytes, base, adapted_bytes * decode.adapted_median / bandwidth
    )


def decode_bytes(header: Header) -> int:
    """Sum the bytes of the tensors that decoding a token reads.

    That is all of them but the token embedding, of which one row is looked up, unless it is also the output
    matrix. Of a mixture's experts it is the share that a token uses. Of an adapter's file it is all.
    """
    untied = "output.weight" in header.tensors
    architecture = header.metadata.get("general.architecture")
    used, experts = (
        header.metadata.get(f"{architecture}.{key}") for key in ("expert_used_count", "expert_count")
    )
    return sum(
        tensor.nbytes * used // experts if experts and used and "_exps." in name else tensor.nbytes
        for name, tensor in header.tensors.items()
        if not (untied and name == "token_embd.weight")
    )
