"""Quality of a model's file, measured: fidelity and costs of types, for conversions and benchmarks alike."""
