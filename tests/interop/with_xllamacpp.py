"""The same task as in node_llama_cpp.mjs, done by xllamacpp in its own environment; it prints JSON."""

import json
import sys
from typing import Any
from urllib.request import Request, urlopen

import xllamacpp


def main() -> None:
    """Do the task that standard input holds."""
    task = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path = task["model"]
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = 1024, 1024, 1024, 1
    params.warmup, params.verbosity = False, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    if task["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(task["adapter"], 1.0)]
    server = xllamacpp.Server(params)
    prompts, first = task["prompts"], task["distributions"]
    done = {
        "tokens": [_tokens(server, text) for text in task["texts"]],
        "answers": [_complete(server, prompt, n_predict=task["count"])["tokens"] for prompt in prompts],
        "distributions": [_distributed(server, prompt) for prompt in prompts[:first]],
    }
    json.dump(done, sys.stdout)


def _tokens(server: Any, text: str) -> list[int]:
    asked = {"content": text, "add_special": False, "parse_special": True}
    return list(_posted(server, "tokenize", asked)["tokens"])


def _complete(server: Any, prompt: list[int], **options: Any) -> dict[str, Any]:
    asked = {"prompt": prompt, "temperature": 0, "return_tokens": True, "cache_prompt": False, **options}
    return _posted(server, "completion", asked)


def _posted(server: Any, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What its HTTP server, which is llama.cpp's own, answers."""
    body, kind = json.dumps(asked).encode(), {"Content-Type": "application/json"}
    with urlopen(Request(f"{server.listening_address}/{path}", body, kind)) as response:
        return dict(json.load(response))


def _distributed(server: Any, prompt: list[int]) -> list[float]:
    """Log-probabilities of every token, in the order of their ids."""
    (first,) = _complete(server, prompt, n_predict=1, n_probs=1_000_000)["completion_probabilities"]
    return [one["logprob"] for one in sorted(first["top_logprobs"], key=lambda one: one["id"])]


if __name__ == "__main__":
    main()
