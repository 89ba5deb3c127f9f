"""Print code lines, modules and raise statements of each package; fail above the budgets of pyproject.toml.

python .ci/budget.py [--set]     --set makes the budgets what there is, plus 2 %
"""

import ast
import io
import math
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = ROOT / "pyproject.toml"
TABLE = "[tool.budget]"
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}
HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def measure(source: str) -> tuple[int, int, int]:
    """Code lines, without blank lines, comments and docstrings; modules; raise statements."""
    nodes = list(ast.walk(ast.parse(source)))
    documented = [node for node in nodes if isinstance(node, HAS_DOCSTRING) and ast.get_docstring(node)]
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in documented:
        docstring = node.body[0]
        lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines), 1, sum(isinstance(node, ast.Raise) for node in nodes)


def packages() -> dict[str, tuple[int, int, int]]:
    """What each package has, and `lab` and `tests`."""
    listed = subprocess.run(
        ["git", "ls-files", "*/*.py"],  # noqa: S607 - git on PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    found = dict[str, Counter[int]]()
    for path in map(Path, listed):
        if not path.parts[0].startswith(".") and (ROOT / path).exists():
            counts = enumerate(measure((ROOT / path).read_text("utf-8")))
            found.setdefault(path.parts[0], Counter()).update(dict(counts))
    return {name: (counts[0], counts[1], counts[2]) for name, counts in sorted(found.items())}


def write_budgets(found: dict[str, tuple[int, int, int]]) -> None:
    """Replace the table in pyproject.toml."""
    rows = (f"{name} = {[math.ceil(1.02 * count) for count in counts]}" for name, counts in found.items())
    text = PYPROJECT.read_text("utf-8")
    before, _, rest = text.partition(f"{TABLE}\n")
    after = re.sub(r"\A(?:\w+ = \[.*\]\n)*", "", rest)
    PYPROJECT.write_text("\n".join((f"{before}{TABLE}", *rows, after)), "utf-8")


def main() -> int:
    """Print the table; the exit status is 1 if something is over its budget."""
    found = packages()
    if "--set" in sys.argv:
        write_budgets(found)
    budgets = tomllib.loads(PYPROJECT.read_text("utf-8"))["tool"]["budget"]
    over = False
    print(f"{'':12}{'code lines':>18}{'modules':>14}{'raise':>14}")
    for name, counts in found.items():
        limits = budgets.get(name, (0, 0, 0))
        cells = [f"{count} of {limit}" for count, limit in zip(counts, limits, strict=True)]
        exceeds = any(count > limit for count, limit in zip(counts, limits, strict=True))
        print(f"{name:12}{cells[0]:>18}{cells[1]:>14}{cells[2]:>14}{'  over' if exceeds else ''}")
        over |= exceeds
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
