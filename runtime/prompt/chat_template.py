"""Chat template of a model: Jinja code from its file, rendered in Jinja's sandbox as `transformers` does.

The sandbox bounds what a template can reach, and this module what it writes. Nothing bounds its time here: a
file from outside is tried before, in a process with limits.
"""

import json
from collections.abc import Sequence, Sized
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...errors import FileError, RequestError, one_line
from .prompt_encoder import PROMPT_LENGTH_MAX, JsonObject
from .thinking import SWITCH

if TYPE_CHECKING:
    from ...files.gguf.header import Header

SOURCE_BYTES_MAX = 1 << 16  # published templates have at most a quarter of this
REPRODUCIBLE_DATE = "2024-07-26"  # in prompts of batches; Llama 3.2's template has it where there is no clock


class _Generation(Extension):
    """The tag `{% generation %}`, which marks text to train on; its body is rendered like any other."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without powers, and with products no longer than a prompt."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sides = ((left, right), (right, left))
        lengths = [
            len(one) * times for one, times in sides if isinstance(one, Sized) and isinstance(times, int)
        ]
        if operator == "**" or max(lengths, default=0) > PROMPT_LENGTH_MAX:
            _raise(f"{operator} can give more than a prompt may need")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """A compiled chat template, with the extensions, filters and variables that it has in `transformers`.

    Attributes:
        source: the template, in Jinja.
        takes_tools: whether it uses the variable `tools`.
    """

    def __init__(
        self, source: str, bos: str = "", eos: str = "", date: str | None = None, where: str = ""
    ) -> None:
        """Compile the template.

        Args:
            source: the template, in Jinja.
            bos: name of the begin-of-text token, which it may write.
            eos: name of the end-of-text token.
            date: the date that it may write, as in ISO 8601; by default today's.
            where: what the error begins with.

        Raises:
            FileError: the source is too long, or not a Jinja template.
        """
        if (nbytes := len(source.encode("utf-8", "replace"))) > SOURCE_BYTES_MAX:
            raise FileError(f"{where}the chat template has {nbytes} bytes, more than {SOURCE_BYTES_MAX}")
        self.source = source
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        day = datetime.fromisoformat(date) if date else None
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "dict": lambda *pairs, **named: {**dict(*pairs), **named},  # `dict.update` would change messages
            "raise_exception": _raise,
            "strftime_now": lambda layout: datetime.strftime(day or datetime.now(), layout),
        }
        self._variables = {"bos_token": bos, "eos_token": eos, "documents": None}
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(tree)
            self.takes_tools = "tools" in meta.find_undeclared_variables(tree)
        except Exception as error:  # from Jinja, or from the Python code that it generates
            raise FileError(f"{where}the chat template cannot be compiled: {one_line(error)}") from None

    def render(
        self, messages: Sequence[JsonObject], tools: Sequence[JsonObject] = (), think: bool | None = None
    ) -> str:
        """Render a conversation, for the model's next message.

        Args:
            messages: what was said so far, with `role` and `content`.
            tools: what the model may call.
            think: whether the model is to think; None leaves it to the template.

        Raises:
            RequestError: the template rejects the conversation, fails, or writes too much.
        """
        asked = {"messages": [*messages], "tools": [*tools] or None, "add_generation_prompt": True}
        switches = {} if think is None else {SWITCH: think, "thinking": think}
        parts, length = [], 0
        try:
            for part in self._template.generate(self._variables | asked | switches):
                parts.append(part)
                length += len(part)
                if length > PROMPT_LENGTH_MAX:
                    _raise(f"it has written more than {PROMPT_LENGTH_MAX} characters")
        except Exception as error:  # untrusted code raises anything
            raise RequestError(f"the chat template failed: {one_line(error)}") from None
        return "".join(parts)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise TemplateError(message)


def read_chat_template(
    header: "Header", bos: int | None, eos: int | None, date: str | None = None
) -> ChatTemplate | None:
    """Compile the template in a model's file; None if there is none, or a blank one.

    Args:
        header: of the file.
        bos: the begin-of-text token, which the template may write.
        eos: the end-of-text token.
        date: see ChatTemplate.

    Raises:
        FileError: it is not a string, too long, or not a Jinja template.
    """
    source = header.metadata.get("tokenizer.chat_template", "")
    if not isinstance(source, str):
        raise FileError(f"{header.path}: metadata key 'tokenizer.chat_template' is not a string")
    if not source.strip():
        return None
    tokens = header.metadata["tokenizer.ggml.tokens"]
    begin, end = ("" if token is None else tokens[token] for token in (bos, eos))
    return ChatTemplate(source, begin, end, date, f"{header.path}: ")
