"""KL divergence by type of the KV cache and attention, against keys, values and attention in float32.

python lab/kv_types.py MODEL.gguf QUESTIONS.jsonl

The first eight rows with `question` and `solution` are the texts, of which the first 256 tokens count.
"""

from pathlib import Path

import numpy as np
import typer
from thirteen.files.json_file import json_object, numbered_lines
from thirteen.runtime.llama.context import Context
from thirteen.runtime.llama.model import Model
from thirteen.runtime.logits import log_softmax
from thirteen.runtime.native.settings import Settings
from thirteen.stats.arrays import Floats

TEXTS, TOKENS, BATCH = 8, 256, 64
EXACT = Settings(TOKENS, 1, BATCH, threads=2, outputs=BATCH, exact=True)
WAYS = {
    f"{'flash' if flash else 'standard'} {kv}": Settings(
        TOKENS, 1, BATCH, threads=2, outputs=BATCH, kv=kv, flash_attention=flash
    )
    for flash, kv in ((True, "f16"), (False, "f16"), (True, "bf16"), (False, "bf16"), (True, "q8_0"))
}


def main(path: Path, questions: Path) -> None:
    """Print a line for each way."""
    rows = [json_object(line, str(number)) for number, line in numbered_lines(questions.read_bytes())]
    with Model(path) as model:
        texts = [
            model.tokenize(f"{row['question']} {row.get('solution', '')}", special=False, bos=True)[:TOKENS]
            for row in rows[:TEXTS]
        ]
        exact = logprobs(model, EXACT, texts)
        for name, params in WAYS.items():
            found = logprobs(model, params, texts)
            divergence = np.sum(np.exp(exact) * (exact - found), axis=1)  # (positions,)
            same = np.mean(exact.argmax(1) == found.argmax(1))
            print(f"{name}: KL {divergence.mean():.2e} nats, same likeliest token {same:.4f}")


def logprobs(model: Model, params: Settings, texts: list[list[int]]) -> Floats:
    """Log-probabilities after each token of all texts, (positions, vocab)."""
    found = []
    with Context(model, params) as context:
        for text in texts:
            found += [log_softmax(context.logits_row(row)) for row in context.decode_text(text)]
            context.clear(0)
    return np.stack(found)


if __name__ == "__main__":
    typer.run(main)
