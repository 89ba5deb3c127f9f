"""PEFT adapters and TinyLoRA codes as low-rank factors of the base's tensors."""
