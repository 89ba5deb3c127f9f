"""Fidelity of quantization: KL divergence from a reference, and the adapter's effect on the logits."""
