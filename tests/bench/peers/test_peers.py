"""Comparison with other programs: real peers on a tiny model, and programs that fail."""

import json
import stat

import numpy as np
import pytest
from thirteen.bench.peers.peer import PeerWorkload
from thirteen.bench.peers.peers import PeerPrograms, _row, peers_table, run_peers
from thirteen.bench.peers.transformers import TransformersPeer
from thirteen.convert.pipeline import convert
from thirteen.errors import ModelFileError, RequestError
from thirteen.files.gguf_header import read_header

WORKLOAD = PeerWorkload(
    threads=1, prompt_tokens=8, decode_tokens=4, sequences=2, short_prompt=4, short_answer=3
)


@pytest.fixture
def program(tmp_path):
    """Write a program with a fixed output, in place of llama-bench and llama-batched-bench."""

    def write(name, output, status=0):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\necho went wrong >&2\nexit {status}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


def test_every_peer_has_a_row(tiny, program):
    single = program("single", json.dumps([{"build_commit": "abc", "avg_ts": n} for n in (100.0, 10.0)]))
    batched = program("batched", "some words\n" + json.dumps({"speed": 50.0}))
    ticks = []
    report = run_peers(
        tiny,
        workload=WORKLOAD,
        rounds=2,
        programs=PeerPrograms(single, batched),
        progress=lambda done, total: ticks.append((done, total)),
    )
    assert [row.name for row in report.rows] == ["thirteen", "llama-bench", "llama-cpp-python"]
    assert report.rows[1].version == "abc"
    assert list(report.rows[1].speeds.values()) == [100.0, 10.0, 50.0]
    assert all(speed > 0 for row in report.rows for speed in row.speeds.values())
    assert ticks[-1] == (9, 9) and peers_table(report).row_count == 3


@pytest.fixture(scope="module")
def converted(base, tmp_path_factory):
    """A small model as a checkpoint and as a GGUF."""
    path = tmp_path_factory.mktemp("peers") / "llama.gguf"
    convert(base("llama"), path, quantization="F16")
    return base("llama"), path


def test_transformers_runs_the_checkpoint_of_the_file(converted):
    checkpoint, model = converted
    report = run_peers(model, workload=WORKLOAD, rounds=1, programs=PeerPrograms(checkpoint=checkpoint))
    row = report.rows[-1]
    assert row.name == "transformers" and "torch" in row.version and row.version.endswith("float32")
    assert all(speed > 0 for speed in row.speeds.values())
    assert not any("transformers" in line for line in report.absent)


def test_transformers_generates_exactly_the_requested_tokens(converted):
    checkpoint, model = converted
    peer = TransformersPeer(read_header(model), checkpoint, WORKLOAD)
    for prompts, tokens in (((1, 8), 1), ((1, 1), 5), ((2, 4), 4)):
        timer = peer.generate(prompts, tokens)
        assert len(timer.times) == 2 + tokens
        assert timer.first_s > 0 and (timer.rest_s > 0 or tokens == 1)


def test_peers_that_are_not_measured_give_the_reason(tiny, monkeypatch):
    monkeypatch.setenv("PATH", "")
    report = run_peers(tiny, workload=WORKLOAD, rounds=1)
    assert [line.partition(":")[0] for line in report.absent] == ["llama-bench", "transformers"]
    assert "--checkpoint is not given" in report.absent[1]


def test_an_unreadable_checkpoint_or_one_of_another_model_is_refused(converted, base, tmp_path):
    checkpoint, model = converted
    with pytest.raises(RequestError, match=r"num_hidden_layers is 1, but 2 in .*llama\.gguf: it is another"):
        run_peers(model, workload=WORKLOAD, programs=PeerPrograms(checkpoint=base("llama wide")))
    with pytest.raises(RequestError, match=r"it has no config\.json"):
        run_peers(model, workload=WORKLOAD, programs=PeerPrograms(checkpoint=tmp_path))
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    for file, text in (("config.json", None), ("config.json", "{"), ("model.safetensors", "no weights")):
        if text is not None:
            (tmp_path / file).write_text(text)
        with pytest.raises(RequestError, match="transformers cannot load it: ") as raised:
            run_peers(model, workload=WORKLOAD, programs=PeerPrograms(checkpoint=tmp_path))
        assert "\n" not in str(raised.value)


def test_the_ratio_is_ours_over_theirs_and_missing_speeds_have_none():
    ours, theirs = np.full((3, 3), 20.0), np.full((3, 3), 10.0)
    theirs[:, 2] = np.nan
    row = _row(type("Peer", (), {"name": "p", "version": "1"}), ours, theirs)
    assert row.ratios["prefill"].estimate == pytest.approx(2)
    assert row.speeds["together"] is row.ratios["together"] is None


def test_a_failing_or_missing_program_is_named(tiny, program):
    with pytest.raises(RequestError, match="bad: failed with exit status 3: went wrong"):
        run_peers(tiny, workload=WORKLOAD, programs=PeerPrograms(program("bad", "", status=3)))
    for output in ("", "[]", '{"a": 1}', "[{}, {}]"):
        with pytest.raises(RequestError, match="odd: its output is not that of llama-bench"):
            run_peers(tiny, workload=WORKLOAD, programs=PeerPrograms(program("odd", output)))
    with pytest.raises(RequestError, match="nowhere: No such file"):
        run_peers(tiny, workload=WORKLOAD, programs=PeerPrograms("/nowhere"))


def test_a_workload_beyond_the_context_and_a_file_that_is_not_a_model_are_refused(tiny, not_a_model):
    with pytest.raises(RequestError, match="500 prompt and 65 decode tokens do not fit the 256"):
        run_peers(tiny, workload=PeerWorkload(threads=1, prompt_tokens=500))
    with pytest.raises(ModelFileError):
        run_peers(not_a_model)
    with pytest.raises(RequestError, match="sequences"):
        PeerWorkload(threads=1, sequences=0)
