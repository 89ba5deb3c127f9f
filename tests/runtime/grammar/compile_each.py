"""Give the library every grammar of a file that the checks let through, and say in JSON how that went.

A script, not a test: a grammar that the checks should have refused may end the process.
"""

import json
import random
import signal
import sys
from pathlib import Path

from grammar_walk import Native  # beside this file
from thirteen.errors import RequestError
from thirteen.runtime.grammar.grammar import from_gbnf
from thirteen.runtime.llama.model import Model


def compile_one(native, text):
    try:
        grammar = from_gbnf(text)
    except RequestError as error:
        return f"refused: {error}"
    with native.reading(grammar) as sampler:
        if not sampler:
            return "not taken"
    native.walk(grammar, random.Random(13), most=4)
    return "taken"


if __name__ == "__main__":
    model, texts = map(Path, sys.argv[1:])
    with Model(model) as loaded:
        native, said = Native(loaded), []
        for text in json.loads(texts.read_text()):
            signal.alarm(20)
            print(repr(text[:2000]), file=sys.stderr, flush=True)
            said.append(compile_one(native, text))
    print(json.dumps(said))
