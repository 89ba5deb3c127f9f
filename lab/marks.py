"""Counts the sums that the calculator completes and the equations that it marks, in texts with results.

python lab/marks.py FILE.jsonl… [--key text]

A completion is a place where the text up to an equals sign, or "is", has a pending result. To see what a
change costs, run it in both checkouts on the same files: answers of `thirteen batch`, or reference solutions.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from thirteen.runtime.arithmetic.calculator import pending_result
from thirteen.runtime.arithmetic.equations import read_equations

_SIGN = re.compile(r"= ?|\bis ?")


def count(texts: Iterable[str]) -> Counter[str]:
    """Numbers of texts, completions, and marks of either kind."""
    counted: Counter[str] = Counter()
    for text in texts:
        steps = read_equations(text).steps
        ends = [sign.end() for sign in _SIGN.finditer(text)]
        counted["texts"] += 1
        counted["completions"] += sum(pending_result(text[:end]) is not None for end in ends)
        counted["marked right"] += sum(step.ok for step in steps)
        counted["marked wrong"] += sum(not step.ok for step in steps)
    return counted


def main() -> None:
    """Print the numbers of all files together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--key", default="text")
    given = parser.parse_args()
    rows = (json.loads(line) for path in given.files for line in path.open(encoding="utf-8"))
    for name, number in count(row[given.key] for row in rows if given.key in row).items():
        print(f"{name}: {number:,}")


if __name__ == "__main__":
    main()
