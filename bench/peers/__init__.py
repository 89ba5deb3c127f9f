"""Comparison with other programs on the same file: llama-bench, llama-cpp-python, transformers."""
