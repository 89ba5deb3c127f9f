"""Files that a command enters, calls that climb back up, and the imports between packages.

`python lab/call_path.py ask "What is 12 * 13?"` runs `thirteen ask …`. A file is entered when one of its
functions is called. A climb is a call of a function in a package above the caller's, by the layers of
pyproject.toml: callbacks, mostly.
"""

import sys
import threading
import tomllib
from collections import Counter
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType
from typing import Any

import grimp
import thirteen

ROOT = Path(thirteen.__file__).parent.resolve()
_PREFIX = f"{ROOT}/"


def package_levels() -> dict[str, int]:
    """Each package's height above the lowest layer."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(one for one in settings["contracts"] if one["containers"] == ["thirteen"])["layers"]
    return {name.strip(): level for level, layer in enumerate(reversed(layers)) for name in layer.split("|")}


class CallPath:
    """Counts the files that are entered, and the calls from one to another that climb."""

    def __init__(self) -> None:
        self.levels = package_levels()
        self.entered = Counter[str]()
        self.climbs = Counter[tuple[str, str]]()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Record a call; see sys.setprofile()."""
        file = self._file(frame)
        if event != "call" or file is None or not frame.f_code.co_flags & CO_OPTIMIZED:
            return  # the bodies of modules and classes are no functions
        self.entered[file] += 1
        caller = frame.f_back
        while caller and self._file(caller) is None:
            caller = caller.f_back
        if caller and (source := self._file(caller)) and self._level(source) < self._level(file):
            self.climbs[source, file] += 1

    def _file(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename.replace("/.venv/typed/thirteen/", "/")
        inside = name.startswith(_PREFIX) and ".venv" not in name
        return name.removeprefix(_PREFIX) if inside else None

    def _level(self, file: str) -> int:
        return self.levels.get(file.partition("/")[0].removesuffix(".py"), len(self.levels))


def imports_text() -> str:
    """Number of pairs of packages of which one imports the other, and the files that import each other."""
    graph = grimp.build_graph("thirteen")
    imports = {
        (one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)
    }
    arrows = {
        tuple(name.split(".")[1] for name in pair) for pair in imports if all("." in one for one in pair)
    }
    circles = sorted(pair for pair in imports if pair[0] < pair[1] and pair[::-1] in imports)
    mutual = "; ".join(" and ".join(pair) for pair in circles) or "none"
    return f"{sum(one != other for one, other in arrows)} arrows between packages; circles of two: {mutual}"


def main(words: list[str]) -> None:
    """Run a command, and print its path on standard error."""
    if not words or words[0] == "--help":
        sys.exit(__doc__)
    path: Any = CallPath()
    threading.setprofile(path)
    sys.setprofile(path)
    from thirteen.cli.main import main as run_command  # noqa: PLC0415 - its imports count

    sys.argv = ["thirteen", *words]
    try:
        run_command()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
    loaded = sum(name.partition(".")[0] == "thirteen" for name in sys.modules)
    lines = [f"  {count:6} {file}" for file, count in sorted(path.entered.items())]
    lines += [f"  {source} -> {file}" for source, file in sorted(path.climbs)]
    lines.append(f"{len(path.entered)} files entered, {len(path.climbs)} climbs, {loaded} modules loaded")
    lines.append(imports_text())
    print("\n".join(lines), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
