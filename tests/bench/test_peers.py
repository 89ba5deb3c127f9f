"""The comparison with what else is installed: real peers on a tiny model, and programs that fail."""

import json
import stat

import numpy as np
import pytest
from thirteen.bench.peers import Work, _row, run, table
from thirteen.errors import ModelFileError, RequestError

WORK = Work(threads=1, prompt_tokens=8, decode_tokens=4, sequences=2, short_prompt=4, short_answer=3)


@pytest.fixture
def program(tmp_path):
    """A program that says what it is told to, as llama-bench and llama-batched-bench do."""

    def write(name, said, status=0):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\necho went wrong >&2\nexit {status}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


def test_every_peer_does_the_work_and_has_a_row(tiny, program):
    single = program("single", json.dumps([{"build_commit": "abc", "avg_ts": n} for n in (100.0, 10.0)]))
    batched = program("batched", "some words\n" + json.dumps({"speed": 50.0}))
    seen = []
    report = run(
        tiny,
        work=WORK,
        rounds=2,
        llama_bench=single,
        llama_batched_bench=batched,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [row.name for row in report.rows] == ["thirteen", "llama-bench", "llama-cpp-python"]
    assert report.rows[1].version == "abc"
    assert list(report.rows[1].speeds.values()) == [100.0, 10.0, 50.0]
    assert all(speed > 0 for row in report.rows for speed in row.speeds.values())
    assert seen[-1] == (6, 6) and table(report).row_count == 3


def test_a_ratio_is_ours_over_theirs_and_what_is_missing_has_none():
    ours, theirs = np.full((3, 1, 3), 20.0), np.full((3, 1, 3), 10.0)
    theirs[..., 2] = np.nan
    row = _row(type("Peer", (), {"name": "p", "version": "1"}), ours, theirs)
    assert row.ratios["prefill"].estimate == pytest.approx(2)
    assert row.speeds["together"] is row.ratios["together"] is None


def test_a_program_that_fails_or_is_not_there_is_named(tiny, program):
    with pytest.raises(RequestError, match="bad ended with status 3: went wrong"):
        run(tiny, work=WORK, llama_bench=program("bad", "", status=3))
    for said in ("", "[]", '{"a": 1}', "[{}, {}]"):
        with pytest.raises(RequestError, match="odd: its output is not of the kind"):
            run(tiny, work=WORK, llama_bench=program("odd", said))
    with pytest.raises(RequestError, match="nowhere: No such file"):
        run(tiny, work=WORK, llama_bench="/nowhere")


def test_work_that_does_not_fit_and_files_that_are_no_models_are_refused(tiny, not_a_model):
    with pytest.raises(RequestError, match="the work needs 502 tokens"):
        run(tiny, work=Work(threads=1, prompt_tokens=500))
    with pytest.raises(ModelFileError):
        run(not_a_model)
    with pytest.raises(RequestError, match="sequences"):
        Work(threads=1, sequences=0)
