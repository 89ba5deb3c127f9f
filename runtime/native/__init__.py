"""The native libraries that compute, behind one interface; settings, handles, and the compute thread."""

import os

# Before a library is loaded: on an abort it would run a debugger on this process, which takes seconds.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
