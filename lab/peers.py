"""The speed of llama.cpp's own programs on the same file as `thirteen bench MODEL --peers`.

python lab/peers.py MODEL.gguf [--rounds 8] [--prompt-tokens 128] [--decode-tokens 64] [--threads N]

llama-bench and llama-server must be on PATH, built from the llama.cpp that llama-cpp-python has. Each runs
anew in every round, beside this engine, with its own defaults but for threads and context.
"""

import argparse
import json
import socket
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path
from time import perf_counter, sleep
from urllib.error import URLError

import numpy as np
from thirteen.bench.environment import ModelSource
from thirteen.bench.program_run import run_program
from thirteen.bench.workload import Workload
from thirteen.runtime.machine import default_threads
from thirteen.stats.intervals import paired_ratio, ratio_level

START_S = 300


def llama_bench_s(model: Path, work: Workload) -> float:
    """Seconds of a question and its answer, from the speeds that llama-bench prints."""
    sizes = ["-p", str(work.prompt_tokens), "-n", str(work.decode_tokens), "-d", f"0,{work.prompt_tokens}"]
    command = ["llama-bench", "-m", str(model), "-t", str(work.threads), "-r", "1", "-o", "json", *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    tests = {(one["n_prompt"], one["n_gen"], one["n_depth"]): one["avg_ts"] for one in printed}
    prefill, decode = tests[work.prompt_tokens, 0, 0], tests[0, work.decode_tokens, work.prompt_tokens]
    return float(work.prompt_tokens / prefill + work.decode_tokens / decode)


def llama_server_s(model: Path, work: Workload, seed: int) -> float:
    """Seconds of a question of random tokens and its answer over HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = ["--ctx-size", str(work.context), "--threads", str(work.threads), "--parallel", "1"]
    command = ["llama-server", "--model", str(model), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_loaded(port)
            prompt = np.random.default_rng(seed).integers(1, 10_000, work.prompt_tokens).tolist()
            body = {"prompt": prompt, "n_predict": 1 + work.decode_tokens, "temperature": 0}
            body |= {"ignore_eos": True, "cache_prompt": False}
            start = perf_counter()
            url = f"http://127.0.0.1:{port}/completion"
            with urllib.request.urlopen(url, json.dumps(body).encode()) as end:
                written = json.loads(end.read())["tokens_predicted"]
            assert written == 1 + work.decode_tokens, written
            return perf_counter() - start
        finally:
            server.kill()


def wait_until_loaded(port: int) -> None:
    """Wait until the server answers."""
    deadline = perf_counter() + START_S
    while perf_counter() < deadline:
        try:
            with closing(urllib.request.urlopen(f"http://127.0.0.1:{port}/health")):
                return
        except (URLError, ConnectionError):
            sleep(0.05)
    raise TimeoutError(f"llama-server did not load the model within {START_S} s")


def main() -> None:
    """Print a line for each program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=default_threads())
    given = parser.parse_args()
    work = Workload(given.prompt_tokens, given.decode_tokens, given.threads)
    seconds: dict[str, list[float]] = {"thirteen": [], "llama-bench": [], "llama-server": []}
    for number in range(given.rounds):
        seconds["thirteen"].append(run_program("thirteen", ModelSource(given.model), work, number).answer_s)
        seconds["llama-bench"].append(llama_bench_s(given.model, work))
        seconds["llama-server"].append(llama_server_s(given.model, work, number))
    own = np.array(seconds["thirteen"])
    for name, values in seconds.items():
        ratio = paired_ratio(own, np.array(values)).text(2)
        print(f"{name}: {np.median(values):.2f} s, {ratio} times ({ratio_level(given.rounds)})")


if __name__ == "__main__":
    main()
