"""Compile every grammar of a file that passes our checks in llama.cpp, and print the outcomes as JSON.

This is a script and not a test, because a grammar that the checks should have refused may end the process.
"""

import json
import random
import signal
import sys
from pathlib import Path

from native_grammar import NativeGrammar  # a module beside this file
from thirteen.errors import RequestError
from thirteen.runtime.grammar.grammar import from_gbnf
from thirteen.runtime.llama.model import Model


def compile_one(native, text):
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
