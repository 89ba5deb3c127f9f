"""Comparison with other programs: real peers on a tiny model, and programs that fail."""

import json
import os
import stat
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from thirteen.bench.peers.llama_bench import LlamaBenchPeer
from thirteen.bench.peers.peer import BUSY_TOKENS, PeerWorkload, RequestPeer
from thirteen.bench.peers.peer_process import PROGRAMS, Program
from thirteen.bench.peers.peers import PeersRequest, _row, peers_table, run_peers
from thirteen.errors import FileError, RequestError
from thirteen.files.gguf.header import read_header

pytestmark = pytest.mark.slow

WORKLOAD = PeerWorkload(
    threads=1, prompt_tokens=8, decode_tokens=4, sequences=2, short_prompt=4, short_answer=3
)
ROWS = ("llama-cpp-python", "llama-cpp-python flash_attn=True")


def single_output(prefill, decode):
    """What llama-bench prints: both tests at depth 0, then at a depth of 8."""
    tests = [(8, 0, 0, prefill), (0, 4, 0, 1.0), (8, 0, 8, 1.0), (0, 4, 8, decode)]
    names = ("n_prompt", "n_gen", "n_depth", "avg_ts")
    return json.dumps([{"build_commit": "abc"} | dict(zip(names, one, strict=True)) for one in tests])


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program with a fixed output on PATH, in place of llama-bench."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(name, output, status=0):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\necho went wrong >&2\nexit {status}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def test_every_peer_has_a_row(tiny, program):
    program("llama-bench", single_output(100.0, 10.0))
    ticks = []
    request = PeersRequest(
        model=tiny,
        work=WORKLOAD,
        rounds=2,
        names=("llama-bench", "llama-cpp-python"),
        rows=("llama-bench", "llama-bench -fa 1", *ROWS),
    )
    report = run_peers(request, lambda done, total: ticks.append((done, total)))
    assert [row.name for row in report.rows] == ["thirteen", "llama-bench", "llama-bench -fa 1", *ROWS]
    assert report.rows[1].version == "abc"
    assert list(report.rows[1].speeds.values()) == [100.0, 10.0, None, None]
    for row in report.rows:
        if "bench" in row.name:
            assert row.load_s is row.peak_rss_bytes is None
        else:
            assert row.load_s > 0 and row.peak_rss_bytes > 1e6 and all(row.speeds.values())
    assert ticks[-1] == (15, 15) and len(peers_table(report).rows) == 5


def test_busy_is_measured_beside_a_busy_process_which_then_ends():
    """Each request of the peer sees one more busy process, but only those of "busy"."""
    own = psutil.Process()
    seen = []

    class Counting(RequestPeer):
        def _answer_s(self, seed, prompt_tokens, decode_tokens):
            seen.append((prompt_tokens, decode_tokens, len(own.children())))
            return 2.0, 4.0

        def _together_s(self, round_number):
            return 8.0

    before = len(own.children())
    speeds = Counting(WORKLOAD).speeds(0)
    assert speeds == (8 / 2, 4 / 4, 2 * (4 + 3) / 8, BUSY_TOKENS / 4)
    assert seen == [(8, 4, before), (BUSY_TOKENS, BUSY_TOKENS, before + 1), (1, 1, before)]
    assert len(own.children()) == before


NOT_ON_PATH = "it is not on PATH"


@pytest.mark.parametrize(
    ("status", "code", "reasons"),
    [
        (None, "os.abort()", (NOT_ON_PATH, NOT_ON_PATH, "its process ended with status -6")),
        (
            3,
            "raise RequestError('no')",
            ("failed with exit status 3: went wrong", "it ended with status 3", "no"),
        ),
    ],
)
def test_a_peer_that_is_not_measured_is_a_line_with_the_reason(
    tiny, tmp_path, program, monkeypatch, status, code, reasons
):
    """An old build of llama-bench, without -d, on PATH ended the whole comparison."""
    if status is None:
        monkeypatch.setenv("PATH", "")
    else:
        program("llama-bench", "", status)
        program("llama-server", "", status)
    script = tmp_path / "peer.py"
    script.write_text(SCRIPT.format(code=code))
    programs = {**PROGRAMS, "mine": Program(lambda: None, {"mine": None}, (str(script), "first"))}
    names = ("llama-bench", "llama-server", "mine")
    request = PeersRequest(model=tiny, work=WORKLOAD, rounds=1, names=names, rows=names)
    report = run_peers(request, programs=programs)
    assert [row.name for row in report.rows] == ["thirteen"]
    for line, name, reason in zip(report.absent, names, reasons, strict=True):
        assert line.startswith(f"{name}: not measured: ") and line.endswith(reason)


def test_output_that_is_not_that_of_llama_bench_is_refused(tiny, program):
    program("llama-bench", "[{}, {}]")
    with pytest.raises(RequestError, match="llama-bench: its output is not that of llama-bench"):
        LlamaBenchPeer(read_header(tiny), WORKLOAD)


SCRIPT = """
import os, sys
from thirteen.bench.peers.peer_process import Program, run_worker
from thirteen.errors import RequestError

class Peer:
    version = "1"
    def __init__(self, model, work):
        assert sys.argv[1] == "first" and work.sequences == 2
    def speeds(self, number):
        {code}

run_worker(sys.argv[2:], {{"mine": Program(lambda: None, {{"mine": Peer}})}})
"""


SERVER = """#!{python}
import http.server, json, sys

if "--version" in sys.argv:
    sys.exit(print("version: 7 (abc)"))
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert options["--parallel"] == "2" and options["--threads"] == "1"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        for token in range(1, body["n_predict"] + 1):
            self.wfile.write(b"data: " + json.dumps({{"tokens_predicted": token}}).encode() + b"\\n\\n")
    def log_message(self, *_):
        pass

{start}
http.server.ThreadingHTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
"""


def test_llama_server_on_path_is_started_measured_and_ended(tiny, tmp_path, monkeypatch):
    path, pids = tmp_path / "llama-server", tmp_path / "pids"
    start = f"import os; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')"
    path.write_text(SERVER.format(python=sys.executable, start=start))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    report = run_peers(PeersRequest(model=tiny, work=WORKLOAD, rounds=1, names=("llama-server",)))
    rows = report.rows[1:]
    assert [row.name for row in rows] == list(PROGRAMS["llama-server"].rows)
    assert all(row.version == "7 (abc)" and row.peak_rss_bytes > 1e6 for row in rows)
    for pid in map(int, pids.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_ratio_is_ours_over_theirs_and_missing_speeds_have_none():
    ours, theirs = np.full((3, 4), 20.0), np.full((3, 4), 10.0)
    theirs[:, 2] = np.nan
    row = _row(SimpleNamespace(name="p", version="1", load_s=1.0, peak_rss_bytes=None), ours, theirs)
    assert row.ratios["prefill"].estimate == pytest.approx(2)
    assert row.speeds["together"] is row.ratios["together"] is None


def test_a_workload_beyond_the_context_and_a_file_that_is_not_a_model_are_refused(tiny, not_a_model):
    with pytest.raises(RequestError, match="500 prompt and 65 decode tokens do not fit the 256"):
        run_peers(PeersRequest(model=tiny, work=PeerWorkload(threads=1, prompt_tokens=500)))
    with pytest.raises(RequestError, match="peer 'vllm' is not one of llama-bench, "):
        run_peers(PeersRequest(model=tiny, names=("vllm",)))
    with pytest.raises(FileError):
        run_peers(PeersRequest(model=not_a_model))
    with pytest.raises(RequestError, match="sequences"):
        PeerWorkload(threads=1, sequences=0)
