"""What quantization preserves: KL divergence from a reference, and the adapter's effect on the logits."""
