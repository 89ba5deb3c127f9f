"""OpenAI's and Ollama's embeddings."""

from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from time import perf_counter_ns
from typing import Annotated, Literal

import numpy as np
from anyio import to_thread
from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ...runtime.llama.embedding_context import Text
from ...stats.arrays import Floats
from ..call import Call
from .bodies import RequestBody
from .endpoints import Endpoints, Operation
from .fields import Count, Json, ModelName
from .ollama import OllamaModel
from .openai import Tokens, texts_of

_TEXTS = 64  # that are embedded before the next look at whether the client is there
_INPUTS = Field(min_length=1, max_length=2048, fail_fast=True)  # as in OpenAI's API
_Text = Annotated[str, Field(min_length=1)]
Dimensions = Annotated[
    Count | None, Field(description="Numbers of each vector that are kept, the first ones.")
]


class EmbeddingRequest(RequestBody):
    """Body of /v1/embeddings."""

    input: _Text | Annotated[list[_Text], _INPUTS] | Tokens | Annotated[list[Tokens], _INPUTS]
    model: ModelName = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Dimensions = None
    truncate: bool = Field(
        False, description="Cut off the end of a text that is too long, instead of refusing it."
    )


class OllamaEmbedRequest(OllamaModel):
    """Body of /api/embed."""

    input: str | Annotated[list[str], _INPUTS]
    truncate: bool = Field(True, description="Cut off the end of a text that is too long.")
    dimensions: Dimensions = None


class OllamaEmbeddingRequest(OllamaModel):
    """Body of /api/embeddings, which came before /api/embed."""

    prompt: str


class EmbeddingEndpoints(Endpoints):
    """Embeddings in both formats."""

    operations = (
        Operation("POST", "/v1/embeddings", "embeddings", EmbeddingRequest),
        Operation("POST", "/api/embed", "ollama_embed", OllamaEmbedRequest),
        Operation("POST", "/api/embeddings", "ollama_embedding", OllamaEmbeddingRequest),
    )

    async def embeddings(self, request: Request, body: EmbeddingRequest) -> Response:
        """Embed texts."""
        vectors = await self._embed(request, body.model, texts_of(body.input), body.dimensions, body.truncate)
        call = Call.of(request)

        def whole() -> Response:
            data = [
                {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
                for index, vector in enumerate(vectors)
            ]
            usage = {"prompt_tokens": call.embedded_tokens, "total_tokens": call.embedded_tokens}
            return JSONResponse({"object": "list", "data": data, "model": call.model, "usage": usage})

        return await to_thread.run_sync(whole)

    async def ollama_embed(self, request: Request, body: OllamaEmbedRequest) -> Response:
        """Embed texts."""
        began, call = perf_counter_ns(), Call.of(request)
        vectors = await self._embed(request, body.model, texts_of(body.input), body.dimensions, body.truncate)
        made: Json = {"model": call.model, "prompt_eval_count": call.embedded_tokens, "load_duration": 0}
        made["total_duration"] = perf_counter_ns() - began
        return await to_thread.run_sync(lambda: JSONResponse(made | {"embeddings": vectors.tolist()}))

    async def ollama_embedding(self, request: Request, body: OllamaEmbeddingRequest) -> Response:
        """Embed a text."""
        vectors = await self._embed(request, body.model, [body.prompt], None, truncate=True)
        return JSONResponse({"embedding": vectors[0].tolist()})

    async def _embed(
        self,
        request: Request,
        model: str | None,
        texts: Sequence[Text],
        dimensions: int | None,
        truncate: bool,
    ) -> Floats:
        """Vectors of texts, (texts, dimensions); a client that disconnects ends it."""
        (engine, adapter), rows = self._model(request, model, embeds=True), list[Floats]()
        async with self.service.scoring_turn():
            tokens = await to_thread.run_sync(partial(engine.embedding_tokens, texts, truncate=truncate))
            for start in range(0, len(tokens), _TEXTS):
                if await request.is_disconnected():
                    raise ClientDisconnect
                part = tokens[start : start + _TEXTS]
                rows.append(
                    await to_thread.run_sync(partial(engine.embed, part, dimensions, adapter=adapter))
                )
        Call.of(request).embedded_tokens = sum(map(len, tokens))
        return np.concatenate(rows)


def _encoded(vector: Floats, encoding: str) -> str | list[float]:
    """A vector as JSON has it: numbers, or base64 of them as little-endian float32."""
    if encoding == "base64":
        return b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
