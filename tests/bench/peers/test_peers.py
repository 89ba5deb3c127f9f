"""Comparison with other programs: real peers on a tiny model, and programs that fail."""

import json
import os
import shutil
import stat
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
from thirteen.bench.peers.peer import BUSY_TOKENS, PeerWorkload, RequestPeer
from thirteen.bench.peers.peer_process import PACKAGES, row_names
from thirteen.bench.peers.peers import (
    PeerPrograms,
    PeerRow,
    _best_setting,
    _row,
    peers_table,
    question_s,
    run_peers,
    work_titles,
)
from thirteen.bench.peers.transformers import TransformersPeer
from thirteen.convert.pipeline import convert
from thirteen.errors import ModelFileError, RequestError
from thirteen.files.gguf.header import read_header

WORKLOAD = PeerWorkload(
    threads=1, prompt_tokens=8, decode_tokens=4, depth=8, sequences=2, short_prompt=4, short_answer=3
)
OTHERS = PACKAGES[1:]  # not installed for the tests


def single_output(prefill, decode):
    """What llama-bench prints: both tests at depth 0, then at a depth of 8."""
    tests = [(8, 0, 0, prefill), (0, 4, 0, 1.0), (8, 0, 8, 1.0), (0, 4, 8, decode)]
    names = ("n_prompt", "n_gen", "n_depth", "avg_ts")
    return json.dumps([{"build_commit": "abc"} | dict(zip(names, one, strict=True)) for one in tests])


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
    single = program("single", single_output(100.0, 10.0))
    batched = program("batched", "some words\n" + json.dumps({"speed": 50.0}))
    ticks = []
    report = run_peers(
        tiny,
        workload=WORKLOAD,
        rounds=2,
        programs=PeerPrograms(single, batched),
        progress=lambda done, total: ticks.append((done, total)),
    )
    python = row_names("llama-cpp-python")
    assert {"llama-cpp-python", "llama-cpp-python flash_attn=True"} < set(python)
    *names, best = (row.name for row in report.rows)
    assert names == ["thirteen", "llama-bench", "llama-bench -fa 1", *python]
    assert best.startswith("llama-cpp-python's best setting, ")
    assert report.rows[1].version == "abc"
    assert list(report.rows[1].speeds.values()) == [100.0, 10.0, 50.0, None]
    others = [row for row in report.rows if "bench" not in row.name]
    assert all(speed > 0 for row in others for speed in row.speeds.values())
    assert all(row.load_s > 0 and row.peak_rss_bytes > 1e6 for row in others)
    assert ticks[-1] == (3 * len(names), 3 * len(names))
    assert peers_table(report).row_count == len(names) + 1


def test_the_best_setting_is_that_with_the_shortest_time_for_a_question():
    """Its decode is slower than that of the defaults, and its prefill much faster."""

    def row(name, prefill, decode):
        speeds = {"prefill": prefill, "decode": decode, "together": 1.0, "busy": None}
        return PeerRow(name, "1", speeds, dict.fromkeys(speeds), None, None)

    thirteen = row("thirteen", 1000.0, 1000.0)
    default = row("llama-cpp-python", 100.0, 20.0)
    flash = row("llama-cpp-python flash_attn=True", 400.0, 18.0)
    work = PeerWorkload(threads=1, prompt_tokens=200, decode_tokens=96)
    assert question_s(default, work) == pytest.approx(2 + 4.8)
    (best,) = _best_setting([thirteen, default, flash], work)
    assert best == replace(flash, name="llama-cpp-python's best setting, flash_attn=True:")
    (best,) = _best_setting([default, row("llama-cpp-python n_ubatch=128", 90.0, 19.0)], work)
    assert best == replace(default, name="llama-cpp-python's best setting, the defaults:")
    assert not [*_best_setting([thirteen, default], work)]


def test_only_the_named_rows_are_measured(tiny):
    rows = ("llama-cpp-python n_ubatch=128",)
    programs = PeerPrograms(packages=("llama-cpp-python",), rows=rows)
    report = run_peers(tiny, workload=WORKLOAD, rounds=1, programs=programs)
    assert [row.name for row in report.rows if "bench" not in row.name] == ["thirteen", *rows]


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
    assert seen == [(8, 4, before), (BUSY_TOKENS, BUSY_TOKENS, before + 1)]
    assert len(own.children()) == before


@pytest.fixture(scope="module")
def converted(base, tmp_path_factory):
    """A small model as a checkpoint and as a GGUF."""
    path = tmp_path_factory.mktemp("peers") / "llama.gguf"
    convert(base("llama"), path, quantization="F16")
    return base("llama"), path


def test_transformers_runs_the_checkpoint_of_the_file(converted):
    checkpoint, model = converted
    report = run_peers(model, workload=WORKLOAD, rounds=1, programs=PeerPrograms(checkpoint=checkpoint))
    row = next(row for row in report.rows if row.name == "transformers")
    assert "torch" in row.version and row.version.endswith("float32")
    assert all(speed > 0 for speed in row.speeds.values())
    assert not any("transformers" in line for line in report.absent)


def test_transformers_generates_exactly_the_requested_tokens(converted):
    checkpoint, model = converted
    peer = TransformersPeer(read_header(model), checkpoint, WORKLOAD)
    for prompts, tokens in (((1, 8), 1), ((1, 1), 5), ((2, 4), 4)):
        timer = peer.generate(0, prompts, tokens)
        assert len(timer.times) == 2 + tokens
        assert timer.first_s > 0 and (timer.rest_s > 0 or tokens == 1)


def test_peers_that_are_not_measured_give_the_reason(tiny, monkeypatch):
    monkeypatch.setenv("PATH", "")
    report = run_peers(tiny, workload=WORKLOAD, rounds=1)
    assert [line.partition(":")[0] for line in report.absent] == ["llama-bench", *OTHERS, "transformers"]
    assert "openvino_genai is not installed" in report.absent[1]
    assert "--checkpoint is not given" in report.absent[-1]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Install a package that stands in for xllamacpp: its server crashes, or writes too few tokens."""

    def install(code):
        folder = tmp_path / "packages"
        (folder / "xllamacpp-1.dist-info").mkdir(parents=True, exist_ok=True)
        (folder / "xllamacpp-1.dist-info" / "METADATA").write_text("Name: xllamacpp\nVersion: 1\n")
        (folder / "xllamacpp.py").write_text(STAND_IN + code)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    return install


STAND_IN = """
import http.server, json, os, threading
from types import SimpleNamespace

def CommonParams():
    names = ("model", "cpuparams", "cpuparams_batch")
    return SimpleNamespace(**{name: SimpleNamespace() for name in names})

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(STATUS)
        self.end_headers()
        for token in range(body["n_predict"] - MISSING):
            self.wfile.write(b"data: " + json.dumps({"content": "a"}).encode() + b"\\n\\n")
        last = {"stop": True, "tokens_predicted": body["n_predict"] - MISSING}
        self.wfile.write(b"data: " + json.dumps(last).encode() + b"\\n\\n")
    def log_message(self, *_):
        pass

class Server:
    def __init__(self, params):
        assert os.path.exists(params.model.path) and params.n_ctx and params.n_parallel
        START()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.listening_address = f"http://127.0.0.1:{self._server.server_port}"

START, STATUS, MISSING = (lambda: None), 200, 0
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def START(): raise RuntimeError('no such architecture')", "RuntimeError: no such architecture"),
        ("START = os.abort", "its process ended with status -6"),
        ("STATUS = 500", "status 500: "),
        ("MISSING = 1", "wrote 4 tokens instead of 5"),
        ("", None),
    ],
)
def test_a_peer_that_fails_is_a_row_that_says_so(tiny, stand_in, code, reason):
    stand_in(code)
    programs = PeerPrograms(packages=("xllamacpp",))
    report = run_peers(tiny, workload=WORKLOAD, rounds=1, programs=programs)
    absent = {line.partition(":")[0]: line for line in report.absent}
    assert [row.name for row in report.rows] == ["thirteen", *([] if reason else ["xllamacpp"])]
    if reason:
        assert reason in absent["xllamacpp"]


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


@pytest.mark.parametrize("fails", [False, True])
def test_llama_server_on_path_is_started_measured_and_ended(tiny, tmp_path, monkeypatch, fails):
    path, pids = tmp_path / "llama-server", tmp_path / "pids"
    start = "sys.exit(3)" if fails else f"import os; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')"
    path.write_text(SERVER.format(python=sys.executable, start=start))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    report = run_peers(tiny, workload=WORKLOAD, rounds=1, programs=PeerPrograms(packages=("llama-server",)))
    if fails:
        assert "llama-server: not measured: it ended with status 3" in report.absent
        return
    rows = report.rows[1:]
    assert [row.name for row in rows] == list(row_names("llama-server"))
    assert all(row.version == "7 (abc)" and row.peak_rss_bytes > 1e6 for row in rows)
    for pid in map(int, pids.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


NODE_PACKAGE = """
const sequence = () => ({
  clearHistory: async () => {},
  evaluate: async function* () { for (let token = 0; token < LENGTH; token++) yield token; },
});
export const LlamaLogLevel = { disabled: "disabled" };
export const getLlama = async () => ({
  loadModel: async () => ({ createContext: async () => ({ getSequence: sequence }) }),
});
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
@pytest.mark.parametrize(
    ("package", "reason"),
    [
        (NODE_PACKAGE.replace("LENGTH", "100"), None),
        (NODE_PACKAGE.replace("LENGTH", "3"), "wrote [3] tokens instead of 5"),
        (NODE_PACKAGE.replace("LENGTH", "LENGTH"), "LENGTH is not defined"),
        ("process.abort()", "its process ended with status -6"),
    ],
)
def test_node_llama_cpp_in_node_path_is_measured(tiny, tmp_path, monkeypatch, package, reason):
    folder = tmp_path / "node-llama-cpp"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"type": "module", "version": "3"}')
    (folder / "dist" / "index.js").write_text(package)
    monkeypatch.setenv("NODE_PATH", str(tmp_path))
    programs = PeerPrograms(packages=("node-llama-cpp",))
    report = run_peers(tiny, workload=WORKLOAD, rounds=1, programs=programs)
    if reason:
        assert f"node-llama-cpp: not measured: {reason}" in report.absent
    else:
        assert [row.name for row in report.rows[1:]] == list(row_names("node-llama-cpp"))
        assert all(row.version == "3" and all(row.speeds.values()) for row in report.rows[1:])


def test_decode_from_an_empty_context_has_its_own_prompt(tiny):
    work = replace(WORKLOAD, depth=1)
    report = run_peers(tiny, workload=work, rounds=1, programs=PeerPrograms(packages=PACKAGES[:1]))
    assert [row.name for row in report.rows[:-1]] == ["thirteen", *row_names("llama-cpp-python")]
    assert "decode 4 after 1" in work_titles(work)


def test_an_unreadable_checkpoint_or_one_of_another_model_is_refused(converted, base, tmp_path):
    checkpoint, model = converted
    with pytest.raises(RequestError, match=r"num_hidden_layers is 1, but 2 in .*llama\.gguf: it is another"):
        run_peers(model, workload=WORKLOAD, programs=PeerPrograms(checkpoint=base("llama wide")))
    with pytest.raises(RequestError, match=r"it has no config\.json"):
        run_peers(model, workload=WORKLOAD, programs=PeerPrograms(checkpoint=tmp_path))
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    for file, text, reason in (
        ("config.json", None, "transformers cannot load it: "),
        ("model.safetensors", "no weights", "transformers cannot load it: "),
        ("config.json", "{", r"config\.json: not JSON: "),
    ):
        if text is not None:
            (tmp_path / file).write_text(text)
        with pytest.raises(RequestError, match=reason) as raised:
            run_peers(model, workload=WORKLOAD, programs=PeerPrograms(checkpoint=tmp_path))
        assert "\n" not in str(raised.value)


def test_the_ratio_is_ours_over_theirs_and_missing_speeds_have_none():
    ours, theirs = np.full((3, 4), 20.0), np.full((3, 4), 10.0)
    theirs[:, 2] = np.nan
    row = _row(type("Peer", (), {"name": "p", "version": "1"}), None, ours, theirs)
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


def test_a_llama_bench_that_was_merely_found_and_fails_is_a_line(tiny, program, tmp_path, monkeypatch):
    """An old build, without -d, on PATH ended the whole comparison."""
    program("llama-bench", "", status=1)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    report = run_peers(tiny, workload=WORKLOAD, rounds=1, programs=PeerPrograms(packages=()))
    assert [row.name for row in report.rows] == ["thirteen"]
    names = [line.partition(":")[0] for line in report.absent]
    assert names == ["llama-bench", "llama-bench -fa 1", "transformers"]
    assert "failed with exit status 1: went wrong" in report.absent[0]


def test_llama_batched_bench_without_llama_bench_is_refused(tiny, program, monkeypatch):
    """It was ignored."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RequestError, match="--llama-batched-bench requires llama-bench"):
        run_peers(tiny, workload=WORKLOAD, programs=PeerPrograms(None, program("batched", "")))


def test_a_llama_bench_that_hangs_is_ended(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("thirteen.bench.peers.llama_bench.TIMEOUT_S", 0.2)
    hung = tmp_path / "hung"
    hung.write_text("#!/bin/sh\nexec sleep 60\n")
    hung.chmod(0o755)
    with pytest.raises(RequestError, match=r"hung: it took longer than 0\.2 s"):
        run_peers(tiny, workload=WORKLOAD, programs=PeerPrograms(str(hung), packages=()))


def test_a_workload_beyond_the_context_and_a_file_that_is_not_a_model_are_refused(tiny, not_a_model):
    with pytest.raises(RequestError, match="500 prompt and 65 decode tokens do not fit the 256"):
        run_peers(tiny, workload=PeerWorkload(threads=1, prompt_tokens=500))
    with pytest.raises(RequestError, match="peer 'vllm' is not one of llama-cpp-python, "):
        PeerPrograms(packages=("vllm",))
    with pytest.raises(ModelFileError):
        run_peers(not_a_model)
    with pytest.raises(RequestError, match="sequences"):
        PeerWorkload(threads=1, sequences=0)
