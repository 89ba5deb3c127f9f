"""The tiny model with a chat template that takes tools, in both notations of a call, and what it says."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.options import Request

CONTEXT = 2048
NOTATIONS = {"tagged": ("<tool_call>", "</tool_call>"), "bare": ("", "")}
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}OPEN{{ call.function | tojson }}CLOSE{% endfor %}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)


def write_tool_model(write_tiny: Callable[..., Path], path: Path, notation: str) -> Path:
    """Write the model; `write_tiny` is the fixture of that name."""
    opening, closing = NOTATIONS[notation]
    template = TEMPLATE.replace("OPEN", opening).replace("CLOSE", closing)
    keys = {
        "tokenizer.chat_template": (template, gguf.GGUFValueType.STRING, None),
        "llama.context_length": (CONTEXT, gguf.GGUFValueType.UINT32, None),
    }
    return write_tiny(path, keys)


def record_prompts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that reach the engine from now on, with the names of control tokens in square brackets."""
    names = {token: f"[{name}]".encode() for name, token in engine.model.control_tokens.items()}
    texts, submit_all = [], engine.submit_all

    def record(requests: Sequence[Request], *, wait: bool = False) -> list[Handle]:
        for request in requests:
            pieces = (names.get(token) or engine.model.token_to_piece(token) for token in request.tokens)
            texts.append(b"".join(pieces).decode())
        return submit_all(requests, wait=wait)

    monkeypatch.setattr(engine, "submit_all", record)
    return texts
