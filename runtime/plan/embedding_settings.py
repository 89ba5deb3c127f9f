"""Settings of an engine that makes embeddings."""

from dataclasses import replace

from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header
from ...files.gguf.pooling import embeds_in_parts
from ..native.settings import BATCH_MAX, Settings

_TEXTS = 64  # at once


def embedding_settings(header: Header, settings: Settings) -> Settings:
    """The settings for a model of embeddings: all texts of a batch share one context.

    A text that cannot be computed in parts is computed in one batch. Given its own result, it returns it.
    """
    context, parts = min(settings.context, read_decoder_shape(header).context), embeds_in_parts(header)
    context = context if parts else min(context, BATCH_MAX)
    batch = min(settings.batch, context) if parts else context
    slots = min(_TEXTS, batch)
    outputs = slots if parts else batch
    return replace(settings, context=context, batch=batch, slots=slots, outputs=outputs, prefix_bytes=0)
