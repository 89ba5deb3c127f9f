"""Signals that end a command: nothing half-written stays."""

import signal
import subprocess
import sys

import pytest

WRITER = """
import signal, sys, time
from pathlib import Path
from thirteen.cli import main
from thirteen.files.output import atomic_write

@main.app.command()
def write(path: Path) -> None:
    with atomic_write(path) as file:
        file.write(b"half")
        print("writing", flush=True)
        while True:
            time.sleep(0.05)  # one that arrives just before a long sleep would be seen only after it

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
main.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_no_part_file(name, tmp_path):
    number = getattr(signal, name)
    command = [sys.executable, "-c", WRITER, "write", tmp_path / "out.gguf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "writing\n"
        for _ in range(2):  # as `timeout` does; the second one was a traceback
            process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        128 + number,
        "interrupted\n" if name == "SIGINT" else "terminated\n",
    )
    assert list(tmp_path.iterdir()) == []
