"""Common parts of the benchmarks: workload, interleaved iterations, environment, worker processes."""
