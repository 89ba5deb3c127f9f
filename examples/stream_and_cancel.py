"""Stream answers in an event loop; one takes too long, and is cancelled."""

import asyncio

from thirteen import Engine


async def show(engine: Engine, question: str) -> None:
    """Print the pieces of an answer; leaving the loop or canceling this task frees its slot."""
    handle = engine.stream(question, max_tokens=256)
    async for piece in handle:
        print(piece.text, end="", flush=True)
    answer = await handle
    print(f"\n{answer.value}: {answer.usage.completion_tokens} tokens, {answer.stop_reason}")


async def main() -> None:
    """Answer two questions; the second has half a second."""
    with Engine("my-model.gguf") as engine:
        await show(engine, "What is 12 * 13?")
        try:
            await asyncio.wait_for(show(engine, "Tell a very long story about eggs."), timeout=0.5)
        except TimeoutError:
            print("\ncancelled")


asyncio.run(main())
