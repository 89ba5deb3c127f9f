"""Training of adapters with gradients, by PEFT and trl."""
