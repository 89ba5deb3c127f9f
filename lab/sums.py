"""Writes synthetic one-step word problems, as rows to train on and held-out ones.

python lab/sums.py OUTPUT [--rows 3000] [--held-out 1000] [--seed 13]

It writes OUTPUT.jsonl and OUTPUT-held-out.jsonl: JSON lines with question, solution and answer.
"""

import argparse
import json
from pathlib import Path

from thirteen.learn.synthetic_sums import draw_sums


def write_sums(output: Path, rows: int = 3000, held_out: int = 1000, seed: int = 13) -> tuple[Path, Path]:
    """Write the two files; their paths."""
    paths = Path(f"{output}.jsonl"), Path(f"{output}-held-out.jsonl")
    for path, count in zip(paths, (rows, held_out), strict=True):
        drawn = draw_sums(count, seed, held_out=path == paths[1])
        path.write_text("".join(f"{json.dumps(vars(row))}\n" for row in drawn))
    return paths


def main() -> None:
    """Write the files that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=13)
    for path in write_sums(**vars(parser.parse_args())):
        print(path)


if __name__ == "__main__":
    main()
