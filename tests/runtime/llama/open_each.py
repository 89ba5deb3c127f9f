"""Open every GGUF of a folder and run it a little, each in its own process, and say in JSON how that went.

A script, not a test: the process that forks must never have computed anything, or the native threads of its
children would hang.
"""

import json
import os
import sys
from pathlib import Path

os.environ["GGML_NO_BACKTRACE"] = "1"  # a debugger for each abort would take seconds

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


def in_a_child(path: Path) -> str:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        said = "raised"
        try:
            said = open_one(path)
        except BaseException as error:
            said = f"raised {error!r}"
        finally:
            os.write(write, said.encode("utf-8", "replace")[:4000])
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return f"died: signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said


if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).glob("*.gguf"))
    print(json.dumps({path.name: in_a_child(path) for path in paths}))
