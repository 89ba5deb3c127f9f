"""The tiny model with a chat template that takes tools, in both notations of a call."""

from collections.abc import Callable
from pathlib import Path

import gguf

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
