"""A command line of `thirteen` that is killed, or finds the disk full, at one of its changes of files.

Python's audit events are the points: Linux only, because the name of an open folder is read from /proc.
"""

import errno
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import thirteen.learn.cards
import thirteen.runtime.batch.batch_file  # noqa: F401 - both are loaded once for all children
from thirteen.cli.main import main as thirteen_main

KILL, FULL_DISK = KINDS = ("kill", "ENOSPC")
_FOLDER_AT = {"open": None, "os.rename": 3, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1}
_REFUSED = ("open", "os.mkdir")  # what a full disk refuses, from the point on
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _fail_at(root: Path, kind: str, at: int) -> list[str]:
    """Let the point number `at` fail; returns the list to which each point is added."""
    points: list[str] = []

    def audit(event: str, args: tuple[object, ...]) -> None:
        if event not in _FOLDER_AT or (event == "open" and not int(str(args[2] or 0)) & _WRITING):
            return
        name = args[1] if event == "os.rename" else args[0]
        if not isinstance(name, str | bytes | os.PathLike):
            return
        place = _FOLDER_AT[event]
        number = args[place] if place is not None else -1
        parent = (
            Path(f"/proc/self/fd/{number}").readlink() if isinstance(number, int) and number >= 0 else root
        )
        path = parent / os.fsdecode(name)
        if not path.is_relative_to(root) or (event == "os.mkdir" and path.is_dir()):
            return
        points.append(f"{event} {path.relative_to(root)}")
        if kind == KILL and len(points) == at + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == FULL_DISK and 0 <= at < len(points) and event in _REFUSED:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    sys.addaudithook(audit)
    return points


def main() -> None:
    """Run `ROOT KIND AT POINTS COMMAND …` in the folder ROOT; the points are written to the file POINTS."""
    root, kind, at, points_file, *command = sys.argv[1:]
    os.chdir(root)
    os.environ["THIRTEEN_CACHE"] = f"{root}/cache"
    tempfile.tempdir = f"{root}/tmp"
    sys.argv = ["thirteen", *command]
    points = _fail_at(Path(root), kind, int(at))
    try:
        thirteen_main()
    finally:
        Path(points_file).write_text(json.dumps(points))
