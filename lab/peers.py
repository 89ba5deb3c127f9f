"""Speed of further inference programs on the same file, beside this engine and llama.cpp's own programs.

python lab/peers.py MODEL.gguf [--with NAMES] [--rounds 8] [--prompt-tokens 200] [--decode-tokens 64]
    [--sequences 8] [--threads N] [--json]

To `thirteen bench peers` it adds openvino, xllamacpp, mistralrs and ik (`pip install '.[peers]'`), and
node-llama-cpp (`npm install node-llama-cpp`, in this folder or in one that NODE_PATH names). Without --with,
those that are installed take part. mistral.rs gets a prompt of words.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from thirteen.bench.harness.system_memory import process_peak_rss_bytes
from thirteen.bench.peers.llama_server import CompletionServerPeer
from thirteen.bench.peers.peer import PeerWorkload, RequestPeer, random_tokens, vocabulary_size
from thirteen.bench.peers.peer_process import PROGRAMS, Loader, Program, run_worker
from thirteen.bench.peers.peers import ROUNDS, PeersRequest, peers_table, run_peers
from thirteen.cli.console import progress_bar, show_report
from thirteen.errors import RequestError, one_line
from thirteen.files.gguf.header import Header
from thirteen.runtime.machine.threads import default_threads


class IkLlamaPeer(RequestPeer):
    """The library's own functions, all sequences in a batch, with tokens chosen by numpy.

    The package's class has no sequences, and copies the logits of every token in Python, which would hide
    the speed of the kernels.
    """

    def __init__(self, model: Header, workload: PeerWorkload, *, repack: bool = False) -> None:
        """Load the model with the library's own defaults, but for context, threads and `repack`.

        Raises:
            RequestError: ik_llama.cpp cannot read the file.
        """
        from ik_llama_cpp import _ctypes_api as lib  # noqa: PLC0415 - only if it is a peer

        super().__init__(workload)
        self.version = version("ik-llama-cpp-python")
        self._lib, self._vocabulary = lib, vocabulary_size(model)
        lib.llama_backend_init()
        loading, computing = lib.llama_model_default_params(), lib.llama_context_default_params()
        loading.use_mmap, loading.repack_tensors = not repack, repack
        computing.n_ctx, computing.n_seq_max = workload.context * workload.sequences, workload.sequences
        computing.n_threads = computing.n_threads_batch = workload.threads
        computing.n_batch = max(computing.n_batch, workload.context)
        loaded = lib.llama_model_load_from_file(os.fsencode(model.path), loading)
        self._context = lib.llama_init_from_model(loaded, computing) if loaded else None
        if not self._context:
            raise RequestError(f"{model.path}: ik_llama.cpp cannot load it")

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        return self._answers_s(range(seed, seed + 1), prompt_tokens, decode_tokens)

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        return sum(self._answers_s(self._sequence_seeds(round_number), work.short_prompt, work.short_answer))

    def _answers_s(self, seeds: range, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        """Seconds to the first token of all sequences, and from there to the last."""
        prompts = [random_tokens(seed, prompt_tokens, self._vocabulary) for seed in seeds]
        self._lib.llama_kv_cache_clear(self._context)
        start = perf_counter()
        last = [
            self._decode([(token, at, number) for at, token in enumerate(prompt)], 1)[0]
            for number, prompt in enumerate(prompts)
        ]
        first = perf_counter()
        for position in range(prompt_tokens, prompt_tokens + decode_tokens):
            items = [(token, position, number) for number, token in enumerate(last)]
            last = self._decode(items, len(items))
        return first - start, perf_counter() - first

    def _decode(self, items: Sequence[tuple[int, int, int]], outputs: int) -> list[int]:
        """The likeliest tokens after the last `outputs` of the items (token, position, sequence)."""
        lib, count = self._lib, len(items)
        batch = lib.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for number, (token, position, sequence) in enumerate(items):
                batch.token[number], batch.pos[number], batch.n_seq_id[number] = token, position, 1
                batch.seq_id[number][0], batch.logits[number] = sequence, number >= count - outputs
            if status := lib.llama_decode(self._context, batch):
                raise RequestError(f"llama_decode failed with status {status}")
        finally:
            lib.llama_batch_free(batch)
        rows = (lib.llama_get_logits_ith(self._context, number) for number in range(count - outputs, count))
        return [int(np.ctypeslib.as_array(row, (self._vocabulary,)).argmax()) for row in rows]


_LOWERCASE_WORD = re.compile("Ġ[a-z]{3,}")  # a token that its own text is tokenized to


class MistralRsPeer(RequestPeer):
    """The engine with its own defaults, but for threads and the reuse of prefixes.

    It takes prompts as text: random words of one token each. Its own clock tells prefill from decode. One
    request is answered after the other: a second thread's fails with "Already borrowed".
    """

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Load the model.

        Raises:
            RequestError: mistral.rs cannot read the file.
        """
        os.environ["RAYON_NUM_THREADS"] = str(workload.threads)
        import mistralrs  # noqa: PLC0415 - only if it is a peer, and after the variable is set

        super().__init__(workload)
        self.version = version("mistralrs")
        tokens = model.metadata["tokenizer.ggml.tokens"]
        self._words = [token[1:] for token in tokens[: len(tokens) // 2] if _LOWERCASE_WORD.fullmatch(token)]
        if not self._words:
            raise RequestError(f"{model.path}: its vocabulary has no words")
        path = model.path.resolve()
        which = mistralrs.Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
        try:
            self._runner = mistralrs.Runner(which=which, prefix_cache_n=0, max_seqs=1)
        except (RuntimeError, ValueError) as error:
            raise RequestError(f"{path}: {one_line(error)}") from None

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        usage = self._complete(seed, prompt_tokens, 1 + decode_tokens)
        return usage.total_prompt_time_sec, usage.total_completion_time_sec

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        start = perf_counter()
        for seed in self._sequence_seeds(round_number):
            self._complete(seed, work.short_prompt, 1 + work.short_answer)
        return perf_counter() - start

    def _complete(self, seed: int, prompt_tokens: int, tokens: int) -> Any:
        """The engine's count of tokens and seconds of one request."""
        import mistralrs  # noqa: PLC0415 - only if it is a peer

        words = np.random.default_rng(seed).choice(self._words, prompt_tokens)
        request = mistralrs.CompletionRequest(
            prompt="".join(f" {word}" for word in words),
            model="default",
            max_tokens=tokens,
            temperature=0.0,
            ignore_eos=True,
        )
        try:
            usage = self._runner.send_completion_request(request).usage
        except (RuntimeError, ValueError) as error:
            raise RequestError(one_line(error)) from None
        counted = usage.prompt_tokens, usage.completion_tokens
        if counted not in {(prompt_tokens, tokens), (prompt_tokens + 1, tokens)}:  # one more: a begin token
            raise RequestError(
                f"mistralrs: read and wrote {counted} tokens instead of {prompt_tokens, tokens}"
            )
        return usage


_SCRIPT = Path(__file__).with_name("node_llama_cpp.mjs")


class NodeLlamaCppPeer(RequestPeer):
    """The library with its own defaults, but for context, sequences, threads and `options` of the context."""

    def __init__(self, model: Header, workload: PeerWorkload, **options: bool) -> None:
        """Start Node.js and load the model.

        Raises:
            RequestError: Node.js or the package is missing, or it cannot read the file.
        """
        super().__init__(workload)
        package = installed_package()
        if package is None:
            raise RequestError("it is not installed")
        self.version = json.loads((package / "package.json").read_text("utf-8"))["version"]
        self._vocabulary = vocabulary_size(model)
        context = {
            "contextSize": workload.context,
            "sequences": workload.sequences,
            "threads": workload.threads,
            **options,
        }
        command = ["node", str(_SCRIPT), str(package), str(model.path.resolve()), json.dumps(context)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End Node.js."""
        self._process.kill()
        self._process.communicate()

    def peak_rss_bytes(self) -> int | None:
        """Peak RSS of Node.js."""
        return process_peak_rss_bytes(self._process.pid)

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        return self._answer([seed], prompt_tokens, 1 + decode_tokens)

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        return sum(
            self._answer(list(self._sequence_seeds(round_number)), work.short_prompt, 1 + work.short_answer)
        )

    def _answer(self, seeds: list[int], prompt_tokens: int, tokens: int) -> tuple[float, float]:
        """Seconds to the first token of all sequences, and from there to the last."""
        prompts = [random_tokens(seed, prompt_tokens, self._vocabulary) for seed in seeds]
        assert self._process.stdin, "it is a pipe"
        try:
            print(json.dumps({"prompts": prompts, "tokens": tokens}), file=self._process.stdin, flush=True)
        except OSError:
            raise RequestError("its process ended") from None
        answer = self._read()
        if answer["written"] != [tokens] * len(seeds):
            raise RequestError(f"wrote {answer['written']} tokens instead of {tokens}")
        return answer["first_s"], answer["rest_s"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise RequestError(f"its process ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RequestError(answer["error"])
        return answer


def installed_package() -> Path | None:
    """Folder of the package in NODE_PATH or in ./node_modules; None if it or Node.js is missing."""
    folders = [*os.environ.get("NODE_PATH", "").split(os.pathsep), "node_modules"]
    packages = [Path(folder, "node-llama-cpp").resolve() for folder in folders if folder]
    found = [package for package in packages if (package / "package.json").is_file()]
    return found[0] if found and shutil.which("node") else None


class OpenVinoPeer(RequestPeer):
    """OpenVINO's pipeline with its own defaults, but for the number of threads and `options`."""

    def __init__(self, model: Header, workload: PeerWorkload, **options: str) -> None:
        """Convert and load the model, which takes seconds.

        Raises:
            RequestError: OpenVINO cannot read the file.
        """
        import openvino_genai  # noqa: PLC0415 - only if it is a peer

        super().__init__(workload)
        self.version = version("openvino-genai")
        self._vocabulary = vocabulary_size(model)
        try:
            self._pipeline = openvino_genai.LLMPipeline(
                str(model.path), "CPU", INFERENCE_NUM_THREADS=workload.threads, **options
            )
        except RuntimeError as error:
            raise RequestError(f"{model.path}: {one_line(error)}") from None

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        start, first, *_, last = self._generate(seed, 1, prompt_tokens, 1 + decode_tokens)
        return first - start, last - first

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        start = perf_counter()
        self._generate(round_number, work.sequences, work.short_prompt, 1 + work.short_answer)
        return perf_counter() - start

    def _generate(self, seed: int, sequences: int, prompt_tokens: int, tokens: int) -> list[float]:
        """Times of the call and, of a single sequence, of each token."""
        import openvino  # noqa: PLC0415 - only if it is a peer
        import openvino_genai  # noqa: PLC0415 - only if it is a peer

        drawn = random_tokens(seed, sequences * prompt_tokens, self._vocabulary)
        ids = np.array(drawn).reshape(sequences, prompt_tokens)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        config = openvino_genai.GenerationConfig()
        config.do_sample, config.ignore_eos = False, True
        config.min_new_tokens = config.max_new_tokens = tokens
        times = [perf_counter()]

        def record(_: Any) -> Any:
            times.append(perf_counter())
            return openvino_genai.StreamingStatus.RUNNING

        streamer = _streamer(openvino_genai, record) if sequences == 1 else None
        written = self._pipeline.generate(inputs, config, streamer).tokens
        if any(len(sequence) != tokens for sequence in written):
            raise RequestError(f"wrote {[len(one) for one in written]} tokens instead of {tokens}")
        return times


def _streamer(openvino_genai: Any, record: Callable[[Any], Any]) -> Any:
    """A streamer that calls `record` with each token."""

    class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
        def write(self, token: Any) -> Any:
            return record(token)

        def end(self) -> None:
            pass

    return Streamer()


class XllamacppPeer(CompletionServerPeer):
    """The server with its own defaults, but for context, slots, threads, `flash_attn` and prefix reuse."""

    def __init__(self, model: Header, workload: PeerWorkload, *, flash_attn: bool | None = None) -> None:
        """Load the model.

        Raises:
            RequestError: xllamacpp cannot read the file.
        """
        import xllamacpp  # noqa: PLC0415 - only if it is a peer

        self.version = version("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(model.path)
        params.n_parallel = workload.sequences
        params.n_ctx = workload.context * workload.sequences
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = workload.threads
        if flash_attn is not None:
            kind = xllamacpp.llama_flash_attn_type
            on, off = kind.LLAMA_FLASH_ATTN_TYPE_ENABLED, kind.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.flash_attn_type = on if flash_attn else off
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise RequestError(f"{model.path}: {one_line(error)}") from None
        address = urlsplit(self._server.listening_address).netloc
        super().__init__(address, vocabulary_size(model), workload)


def _package(name: str) -> Callable[[], str | None]:
    return lambda: None if find_spec(name) else f"{name} is not installed"


def _node_llama_cpp() -> str | None:
    return None if installed_package() else "it is not in NODE_PATH or ./node_modules, or node is not on PATH"


def lab_programs() -> dict[str, Program]:
    """The programs of the package, and those that this script loads."""
    rows: dict[str, tuple[Callable[[], str | None], dict[str, Loader]]] = {
        "openvino": (
            _package("openvino_genai"),
            {
                "openvino": OpenVinoPeer,
                "openvino ATTENTION_BACKEND=SDPA": partial(OpenVinoPeer, ATTENTION_BACKEND="SDPA"),
            },
        ),
        "xllamacpp": (
            _package("xllamacpp"),
            {
                "xllamacpp": XllamacppPeer,
                "xllamacpp flash_attn=off": partial(XllamacppPeer, flash_attn=False),
            },
        ),
        "mistralrs": (_package("mistralrs"), {"mistralrs": MistralRsPeer}),
        "node-llama-cpp": (
            _node_llama_cpp,
            {
                "node-llama-cpp": NodeLlamaCppPeer,
                "node-llama-cpp flashAttention=true": partial(NodeLlamaCppPeer, flashAttention=True),
            },
        ),
        "ik": (
            _package("ik_llama_cpp"),
            {"ik": IkLlamaPeer, "ik repack_tensors=True": partial(IkLlamaPeer, repack=True)},
        ),
    }
    worker = (__file__, "worker")
    added = {name: Program(missing, loaders, worker) for name, (missing, loaders) in rows.items()}
    return {**PROGRAMS, **added}


def main() -> None:
    """Measure, or as a worker load one of the programs and measure its rounds."""
    if sys.argv[1:2] == ["worker"]:
        sys.exit(run_worker(sys.argv[2:], lab_programs()))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--with", dest="names", default="", metavar="NAMES")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    work = PeerWorkload(given.threads, given.prompt_tokens, given.decode_tokens, sequences=given.sequences)
    names = given.names.split(",") if given.names else ()
    with progress_bar("peers") as progress:
        request = PeersRequest(model=given.model, work=work, rounds=given.rounds, names=names)
        report = run_peers(request, progress, lab_programs())
    show_report(given.json, report, peers_table)


if __name__ == "__main__":
    main()
