"""Compiles Lark grammars for a model and samples a text of each; refusal is an outcome too.

A script, not a test: what the limits should have stopped may end the process.
"""

import random
import sys
from pathlib import Path

from thirteen.errors import RequestError
from thirteen.runtime.grammar.grammar import from_lark
from thirteen.runtime.llama.model import Model
from thirteen.tests.runtime.grammar.texts import GrammarTexts

if __name__ == "__main__":
    with Model(Path(sys.argv[1])) as model:
        for source in sys.argv[2:]:
            try:
                text = GrammarTexts(model).sample(from_lark(source), random.Random(13), max_bytes=100)
                print(repr(text), flush=True)
            except (RequestError, AssertionError) as error:  # llguidance's masks are inexact with negation
                print(f"refused: {error}", flush=True)
