"""Append-only files: what is on disk after an interruption, and whose records they are."""

import subprocess
import sys

import pytest
from thirteen.errors import OutputError, RequestError
from thirteen.files.journal import Journal

IDENTITY = {"seed": 1}
FIRST = b'{"format": 1, "run": {"seed": 1}}\n'
FULL = """
import resource, signal, sys
from pathlib import Path
from thirteen.errors import OutputError
from thirteen.files.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
with Journal(Path(sys.argv[1]), {"seed": 1}, "run") as journal:
    journal.record({"n": 1})
    try:
        journal.record({"n": "56789 and more"})
    except OutputError as error:
        print(error)
"""


def test_a_full_disk_leaves_whole_lines_and_one_error_that_names_the_file(tmp_path):
    """The buffered rest was written again when the file was closed, with an error that named nothing."""
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{path}: cannot write: File too large\n", "")
    assert path.read_bytes() == FIRST + b'{"n": 1}\n'


def test_a_torn_line_does_not_count_and_is_cut_before_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(torn := FIRST + b'{"n": 1}\n{"n": 2')
    with Journal(path, IDENTITY, "run") as journal:
        assert journal.entries == [{"n": 1}]
        assert path.read_bytes() == torn
        journal.record({"n": 3})
    assert path.read_bytes() == FIRST + b'{"n": 1}\n{"n": 3}\n'


def test_a_second_writer_is_refused(tmp_path):
    one, two = (Journal(tmp_path / "a", IDENTITY, "run") for _ in range(2))
    with one, two:
        one.record({"n": 1})
        with pytest.raises(OutputError, match="another process is writing"):
            two.record({"n": 2})
    with pytest.raises(OutputError, match="another process has changed"), two:
        two.record({"n": 2})


def test_a_journal_keeps_its_entries_and_no_other_run_resumes_it(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    with Journal(path, IDENTITY, "batch") as journal:
        journal.record({"n": 1})
        journal.record({"n": 2})
    again = Journal(path, IDENTITY, "batch")
    assert again.entries == [{"n": 1}, {"n": 2}]
    with again:
        again.record({"n": 3})
    assert Journal(path, IDENTITY, "batch").entries == [{"n": 1}, {"n": 2}, {"n": 3}]
    with pytest.raises(RequestError, match="seed is 1"):
        Journal(path, {"seed": 2}, "batch")
