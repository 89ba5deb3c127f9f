"""The task of node_llama_cpp.mjs, run by xllamacpp in its own environment; prints JSON."""

import json
import sys
from typing import Any
from urllib.request import Request, urlopen

import xllamacpp


def main() -> None:
    """Read a task from standard input and run it."""
    task = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path = task["model"]
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = 1024, 1024, 1024, 1
    params.warmup, params.verbosity = False, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    if task["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(task["adapter"], 1.0)]
    server = xllamacpp.Server(params)
    prompts, distributions = task["prompts"], task["distributions"]
    results = {
        "tokens": [_tokenize(server, text) for text in task["texts"]],
        "answers": [_complete(server, prompt, n_predict=task["count"])["tokens"] for prompt in prompts],
        "distributions": [_logprobs(server, prompt) for prompt in prompts[:distributions]],
    }
    json.dump(results, sys.stdout)


def _tokenize(server: xllamacpp.Server, text: str) -> list[int]:
    body = {"content": text, "add_special": False, "parse_special": True}
    return list(_post(server, "tokenize", body)["tokens"])


def _complete(server: xllamacpp.Server, prompt: list[int], **options: int) -> dict[str, Any]:
    body = {"prompt": prompt, "temperature": 0, "return_tokens": True, "cache_prompt": False, **options}
    return _post(server, "completion", body)


def _post(server: xllamacpp.Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Post to its HTTP server, which is llama.cpp's own."""
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urlopen(Request(f"{server.listening_address}/{path}", data, headers)) as response:
        return dict(json.load(response))


def _logprobs(server: xllamacpp.Server, prompt: list[int]) -> list[float]:
    """Return the log-probability of every token, in the order of token ids."""
    (first,) = _complete(server, prompt, n_predict=1, n_probs=1_000_000)["completion_probabilities"]
    return [entry["logprob"] for entry in sorted(first["top_logprobs"], key=lambda entry: entry["id"])]


if __name__ == "__main__":
    main()
