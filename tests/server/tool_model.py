"""A chat template that takes tools, in both notations of a call, and the prompts that a model gets."""

from collections.abc import Sequence

import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.options import Request

NOTATIONS = {"tagged": ("<tool_call>\n", "\n</tool_call>"), "bare": ("", "")}
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}OPEN{{ call.function | tojson }}CLOSE{% endfor %}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)


def tool_template(notation: str) -> str:
    """The chat template with this notation of calls."""
    opening, closing = NOTATIONS[notation]
    return TEMPLATE.replace("OPEN", opening).replace("CLOSE", closing)


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
