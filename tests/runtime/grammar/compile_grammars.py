"""Compiles a file's grammars in llama.cpp, if they pass our checks, and prints the outcomes as JSON.

A script, not a test: a grammar that the checks should have refused may crash the process.
"""

import json
import random
import signal
import sys
from pathlib import Path

from thirteen.errors import RequestError
from thirteen.runtime.grammar.grammar import from_gbnf
from thirteen.runtime.llama.model import Model
from thirteen.tests.runtime.grammar.native_grammar import NativeGrammar


def compile_one(native: NativeGrammar, text: str) -> str:
    try:
        grammar = from_gbnf(text)
    except RequestError as error:
        return f"refused: {error}"
    with native.sampler(grammar) as sampler:
        if not sampler:
            return "not compiled"
    native.sample_text(grammar, random.Random(13), max_bytes=4)
    return "compiled"


if __name__ == "__main__":
    model_path, texts_path = map(Path, sys.argv[1:])
    with Model(model_path) as model:
        native, outcomes = NativeGrammar(model), []
        for text in json.loads(texts_path.read_text()):
            signal.alarm(20)
            print(repr(text[:2000]), file=sys.stderr, flush=True)
            outcomes.append(compile_one(native, text))
    print(json.dumps(outcomes))
