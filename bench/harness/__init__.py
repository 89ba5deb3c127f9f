"""Common parts of the benchmarks: workload, interleaved iterations, environment, energy, worker processes."""
