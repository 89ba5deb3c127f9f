"""Opens and runs every GGUF of a folder, each in a child process, and prints the outcomes as JSON.

A script, not a test: the process that forks must never have computed anything, or the native threads of its
children would hang.
"""

import json
import os
import sys
from pathlib import Path

os.environ["GGML_NO_BACKTRACE"] = "1"  # otherwise each abort starts a debugger, which takes seconds

from thirteen.errors import ThirteenError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Sampling


def open_one(path: Path) -> str:
    try:
        with Engine(path, context=64, slots=2, threads=1) as engine:
            engine.answers(["ab <|im_end|> \n 1", "é"], max_tokens=3)
            engine.answer("a", max_tokens=3, sampling=Sampling(temperature=1.0))
            engine.logits([1, 2, 3])
    except ThirteenError as error:
        return f"refused: {error}"
    return "ran"


def open_in_child(path: Path) -> str:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        outcome = "raised"
        try:
            outcome = open_one(path)
        except BaseException as error:
            outcome = f"raised {error!r}"
        finally:
            os.write(write, outcome.encode("utf-8", "replace")[:4000])
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        outcome = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return f"died: signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else outcome


if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).glob("*.gguf"))
    print(json.dumps({path.name: open_in_child(path) for path in paths}))
