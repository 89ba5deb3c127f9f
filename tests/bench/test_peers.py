"""This engine beside llama-cpp-python."""

import pytest
from thirteen.bench.environment import ModelSource
from thirteen.bench.peers import peers_table, run_peers
from thirteen.bench.program_run import PROGRAMS, run_program
from thirteen.bench.workload import Workload
from thirteen.errors import FileError

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
def test_each_program_runs_the_file_in_a_process_of_its_own(tiny):
    ticks = []
    report = run_peers(tiny, Workload(16, 4, 1), 2, lambda *n: ticks.append(n))
    assert list(report.runs) == list(PROGRAMS) and ticks[-1] == (6, 6)
    assert list(report.ratios) == list(PROGRAMS)[1:]
    for ratio in report.ratios.values():
        assert ratio.low <= ratio.estimate <= ratio.high
    for run in (run for runs in report.runs.values() for run in runs):
        assert min(run.first_token_s, run.load_s, run.peak_bytes) > 0 and run.answer_s > run.first_token_s
    assert report.verdict[0].startswith("Speed: an answer takes ")
    assert len(peers_table(report).rows) == 3


def test_a_file_that_a_program_cannot_load_is_an_error_with_its_message(not_a_model):
    for program in PROGRAMS:
        with pytest.raises(FileError, match=rf"no\.gguf: {program} ended with status "):
            run_program(program, ModelSource(not_a_model), Workload(4, 2, 1))
