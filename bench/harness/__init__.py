"""What the benchmarks share: workload, interleaved iterations, environment, energy, isolated processes."""
