"""Running a model file: tokens in, tokens out, and the text around them."""

from ..files.lazy_package import import_lazily

import_lazily("gguf")
import_lazily("llama_cpp")
