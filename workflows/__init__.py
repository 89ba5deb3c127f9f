"""What composes several packages: the demo, the default model, adapter resolution, size sweeps."""
