"""What the benchmarks share: workload, iterations, interleaved rounds, environment, isolated processes."""
