"""The campaign: what libFuzzer prints is read, and with atheris a whole campaign runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from .campaign import Outcome

FINISHED = """\
#2\tINITED cov: 51 ft: 51 corp: 1/1b exec/s: 0 rss: 84Mb
#1024\tREDUCE cov: 55 ft: 60 corp: 12/37b lim: 4 exec/s: 0 rss: 84Mb L: 3/4 MS: 1 EraseBytes-
Done 204800 runs in 2 second(s)
stat::number_of_executed_units: 204800
stat::average_exec_per_sec:     102400
"""
FAILED = """\
#2\tINITED cov: 51 ft: 51 corp: 1/1b exec/s: 0 rss: 84Mb

 === Uncaught Python exception: ===
KeyError: 'a'
==123== ERROR: libFuzzer: fuzz target exited
artifact_prefix='/a folder/short_codes-'; Test unit written to /a folder/short_codes-crash-86f7e437
"""


def test_the_numbers_of_a_fuzzer_are_read() -> None:
    outcome = Outcome(0, FINISHED)
    assert (outcome.inputs, outcome.executions, outcome.saved) == (12, 204800, None)


def test_the_file_of_an_input_that_failed_is_read() -> None:
    outcome = Outcome(77, FAILED)
    assert (outcome.inputs, outcome.executions) == (1, 0)
    assert outcome.saved == "/a folder/short_codes-crash-86f7e437"


def test_a_campaign_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris")
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    command = [
        sys.executable,
        str(Path(__file__).with_name("campaign.py")),
        "2",
        "short_codes",
        "vocabulary_lists",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    first, second, last = done.stdout.splitlines()
    assert first.startswith("short_codes: ") and second.startswith("vocabulary_lists: ")
    assert last == "2 targets of 1 s each, 0 failed"
    assert list((tmp_path / "fuzz/short_codes").iterdir()), "what was found is kept"
