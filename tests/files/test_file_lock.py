"""Locks of paths between processes and within one."""

import subprocess
import sys
from pathlib import Path

from thirteen.files.file_lock import PathLock

HOLD = """
import sys
from pathlib import Path
from thirteen.files.file_lock import PathLock
lock = PathLock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from thirteen.files.file_lock import PathLock
counter = Path(sys.argv[1])
for _ in range(100):
    with PathLock(counter).held():
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_a_lock_excludes_another_and_leaves_no_file(tmp_path: Path) -> None:
    one, other = PathLock(tmp_path / "a"), PathLock(tmp_path / "a")
    assert one.acquire()
    assert not other.acquire()
    other.release()  # of what it does not hold
    assert not other.acquire()
    one.release()
    assert other.acquire()
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    lock = PathLock(tmp_path / "a")
    command = [sys.executable, "-c", HOLD, tmp_path / "a"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert not lock.acquire()
        process.kill()
    assert lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_processes_that_wait_take_turns(tmp_path: Path) -> None:
    """The file of a lock goes with each release, while others wait for it."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, counter]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "400"
    assert list(tmp_path.iterdir()) == [counter]
