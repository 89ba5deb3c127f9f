"""GGUF files: the header, its metadata, and the shape of a model."""

from ..lazy_package import import_lazily

import_lazily("gguf")
