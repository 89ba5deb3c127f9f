"""llama.cpp's low-level API: models, contexts, samplers, and the checks before native calls."""

import os

# Before the library is loaded: on an abort it would run a debugger on this process, which takes seconds.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
