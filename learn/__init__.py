"""Gradient training of adapters with PEFT and trl: supervised fine-tuning, GRPO, distillation."""
