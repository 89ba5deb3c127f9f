"""A back end with FastAPI: pip install fastapi uvicorn, then uvicorn fastapi_app:app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from thirteen import Engine
from thirteen.errors import BusyError, RequestError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the engine while the application runs."""
    with Engine("my-model.gguf") as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/ask")
def ask(question: str) -> StreamingResponse:
    """Stream the answer; a client that disconnects frees its slot."""
    engine: Engine = app.state.engine
    try:
        handle = engine.submit(engine.request(question))
    except (BusyError, RequestError) as error:
        raise HTTPException(429 if isinstance(error, BusyError) else 400, str(error)) from error
    return StreamingResponse((piece.text async for piece in handle), media_type="text/plain")
