"""node-llama-cpp as a peer: llama.cpp in Node.js, prebuilt by its authors."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...files.gguf.header import Header
from ..harness.peak_memory import process_peak_rss_bytes
from .peer import PeerWorkload, RequestPeer, random_tokens, vocabulary_size

_SCRIPT = Path(__file__).with_suffix(".mjs")


class NodeLlamaCppPeer(RequestPeer):
    """The library with its own defaults, but for context, sequences, threads and `options` of the context."""

    name = "node-llama-cpp"

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
        self._process = subprocess.Popen(  # noqa: S603 - this package's script
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
