"""Common parts of the benchmarks: interleaved iterations, worker processes, tables."""
