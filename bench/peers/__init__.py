"""The same file and work through other programs: llama-bench, llama-cpp-python, transformers."""
