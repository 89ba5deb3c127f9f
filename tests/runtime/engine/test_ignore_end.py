"""ignore_end: a request continues past end-of-turn tokens, so that a benchmark cannot stop early."""

import numpy as np
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Request, StopReason

# Zeroed matrices: the output layer then sees the embedding alone.
SHAPES = {"attn_output": (64, 64), "ffn_down": (64, 96)}


def run(engine, **options):
    *pieces, last = engine.submit(Request((1, 2, 3), max_tokens=7, **options))
    return [token for piece in (*pieces, last) for token in piece.tokens], last.answer


def test_a_model_that_only_ends_still_gives_max_tokens(tmp_path, write_tiny):
    eos = 258
    embedding = np.zeros((259, 64), np.float32)
    embedding[:, 0] = 1.0
    embedding[eos, 0] = 9.0  # the tied output layer makes this the likeliest token after anything
    quiet = {
        f"blk.{n}.{name}.weight": np.zeros(SHAPES[name], np.float32) for n in range(2) for name in SHAPES
    }
    path = write_tiny(tmp_path / "ends.gguf", arrays={"token_embd.weight": embedding, **quiet})
    with Engine(path, context=64, slots=1, threads=1) as engine:
        tokens, end = run(engine)
        assert (tokens, end.stop_reason) == ([], StopReason.END)
        tokens, end = run(engine, ignore_end=True)
        assert (tokens, end.stop_reason) == ([eos] * 7, StopReason.LENGTH)
        assert end.usage.completion_tokens == 7
