"""Kills a run of `thirteen learn` at random points, and compares its files with those of a run that was not.

python lab/learn_kills.py [--kills 10] MODEL QUESTIONS FOLDER [-- --minutes 600 --max-tokens 64]

Give more minutes than all questions need: how many fit is measured anew at the start of each run.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

COMPARED = ("adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "prompt.json")


def start(given: argparse.Namespace, output: Path) -> subprocess.Popen[bytes]:
    """Start a run, or resume it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    learn = [sys.executable, "-m", "thirteen", "learn", given.model, given.questions, "--output", str(output)]
    return subprocess.Popen([*learn, *given.options], stderr=subprocess.DEVNULL)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a run must write alike; a prompt alone has no adapter."""
    paths = (path for name in COMPARED if (path := folder / name).exists())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> None:
    """Run once without a kill, then with kills until one run of them ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    began = time.monotonic()
    whole = given.folder / "whole"
    if start(given, whole).wait():
        raise SystemExit("the run without a kill failed")
    whole_s = time.monotonic() - began
    expected = hashes(whole)
    moments = random.Random(given.seed)
    killed = runs = 0
    while killed < given.kills:
        output, done = given.folder / f"run-{runs}", False
        runs += 1
        while killed < given.kills and not done:
            run = start(given, output)
            try:
                if run.wait(moments.uniform(0, whole_s)):
                    raise SystemExit(f"{output}: a run failed")
                done = True
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                killed += 1
        if not done and start(given, output).wait():
            raise SystemExit(f"{output}: the resumed run failed")
        print(f"{output}: {killed} kills so far, {'the same' if hashes(output) == expected else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
