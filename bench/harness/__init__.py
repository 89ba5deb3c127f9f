"""How every benchmark measures: workload, iterations, interleaved rounds, environment, isolated processes."""
