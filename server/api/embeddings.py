"""OpenAI's and Ollama's embeddings."""

from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import numpy as np
from anyio import to_thread
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ...stats import Floats
from ..engine_service import Call
from .bodies import SEVERAL, Count, ModelName, RequestBody, Tokens
from .ollama import OllamaModel

_TEXTS = 64  # that are embedded before the next look at whether the client is there
_INPUTS = Field(min_length=1, max_length=2048, fail_fast=True)  # as in OpenAI's API


class EmbeddingRequest(RequestBody):
    """Body of /v1/embeddings."""

    input: Annotated[list[Annotated[str, Field(min_length=1)] | Tokens], _INPUTS, SEVERAL]
    model: ModelName = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    truncate: bool = Field(False, description="Cut off a text that is too long, instead of refusing it.")


class OllamaEmbedRequest(OllamaModel):
    """Body of /api/embed."""

    input: Annotated[list[str], _INPUTS, SEVERAL]
    truncate: bool = True
    dimensions: Count | None = None


async def embeddings(call: Call, body: EmbeddingRequest) -> Response:
    """Embed texts."""
    vectors = await _embed(call, body)

    def whole() -> Response:
        numbers: Sequence[object] = vectors.tolist()
        if body.encoding_format == "base64":  # of little-endian float32
            numbers = [b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(numbers)]
        usage = {"prompt_tokens": call.embedded_tokens, "total_tokens": call.embedded_tokens}
        return JSONResponse({"object": "list", "data": data, "model": call.model, "usage": usage})

    return await to_thread.run_sync(whole)


async def ollama_embed(call: Call, body: OllamaEmbedRequest) -> Response:
    """Embed texts."""
    vectors = await _embed(call, body)
    told = {"model": call.model, "prompt_eval_count": call.embedded_tokens}
    return await to_thread.run_sync(lambda: JSONResponse(told | {"embeddings": vectors.tolist()}))


async def _embed(call: Call, body: EmbeddingRequest | OllamaEmbedRequest) -> Floats:
    """Vectors of texts, (texts, dimensions); a client that disconnects ends it."""
    engine, rows = call.engine, list[Floats]()
    texts: Sequence[str | list[int]] = body.input
    async with call.service.scoring:
        tokens = await to_thread.run_sync(partial(engine.embedding_tokens, texts, truncate=body.truncate))
        for start in range(0, len(tokens), _TEXTS):
            await call.check_connected()
            embed = partial(engine.embed, adapter=call.adapter)
            rows.append(await to_thread.run_sync(embed, tokens[start : start + _TEXTS], body.dimensions))
    call.embedded_tokens = sum(map(len, tokens))
    return np.concatenate(rows)
