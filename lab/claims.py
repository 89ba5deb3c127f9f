"""Counts the marks of made-up claims, whose truth is known: none false may be marked right, none true wrong.

python lab/claims.py [--count 200000] [--seed 13] [--show 5]
"""

import argparse
import random
from collections import Counter

from thirteen.runtime.arithmetic.equations import read_equations
from thirteen.tests.runtime.arithmetic.claims import draw_false, draw_plain, draw_true


def main() -> None:
    """Print how many claims of each kind have a mark, and some with a wrong one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--show", type=int, default=5)
    given = parser.parse_args()
    kinds = {
        "false": (draw_false, "right"),
        "true": (draw_true, "wrong"),
        "plain and true": (draw_plain, "none"),
    }
    for name, (draw_claim, bad) in kinds.items():
        draw, counted, shown = random.Random(f"{name} {given.seed}"), Counter[str](), set[str]()
        for _ in range(given.count):
            text = draw_claim(draw)
            steps = read_equations(text).steps
            mark = "none" if not steps else "right" if all(step.ok for step in steps) else "wrong"
            counted[mark] += 1
            if mark == bad and len(shown) < given.show:
                shown.add(text)
        print(f"{name}: {dict(counted)}", *(f"  marked {bad}: {text!r}" for text in sorted(shown)), sep="\n")


if __name__ == "__main__":
    main()
