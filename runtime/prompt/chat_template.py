"""Chat template of a model: untrusted Jinja code, rendered in Jinja's sandbox.

The sandbox bounds what a template can reach, not what it can use up: template_process.py does that.
"""

from collections.abc import Sequence, Sized
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...errors import FileError, RequestError, as_line, one_line
from .hidden_text import StandIns
from .prompt_encoder import PROMPT_CHARACTERS_MAX, JsonObject, Sight
from .thinking import SWITCH

POWER_MAX = 1 << 10
ROLES = ("system", "developer", "user", "assistant", "tool")


class _Generation(Extension):
    """The tag `{% generation %}`, which marks text to train on; its body is rendered like any other."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses products and powers that would fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            size, maximum = max(abs(left), abs(right)), POWER_MAX
        else:
            size, maximum = _repeated(left, right) or _repeated(right, left), PROMPT_CHARACTERS_MAX
        if size > maximum:
            raise SecurityError(f"{operator} gives more than the {maximum} that a prompt may need")
        return super().call_binop(context, operator, left, right)


def _repeated(sequence: Any, times: Any) -> int:
    return len(sequence) * times if isinstance(sequence, Sized) and isinstance(times, int) else 0


class ChatTemplate:
    """A compiled chat template.

    It renders as `transformers` does, with the same extensions, filters and variables.

    Attributes:
        source: the template, in Jinja.
        takes_tools: whether it uses the variable `tools`.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "", date: str | None = None) -> None:
        """Compile the template.

        Args:
            source: the template, in Jinja.
            bos: name of the begin-of-text token, which it may write.
            eos: name of the end-of-text token.
            date: the date that it may write, as in ISO 8601; by default today's.

        Raises:
            FileError: the source is not a Jinja template.
        """
        self.source = source
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        self._stand_ins = StandIns(source)
        environment.filters["tojson"] = self._to_json
        environment.globals["raise_exception"] = _raise
        day = datetime.fromisoformat(date) if date else None
        environment.globals["strftime_now"] = lambda layout: datetime.strftime(day or datetime.now(), layout)
        self._variables = {"bos_token": bos, "eos_token": eos, "documents": None}
        try:
            self._template = environment.from_string(source)
            self.takes_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        except Exception as error:  # from Jinja, or from the Python code that it generates
            raise FileError(f"the chat template cannot be compiled: {one_line(error)}") from None

    def parts(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] = (),
        sight: Sight = "all",
        think: bool | None = None,
    ) -> list[str]:
        """Render a conversation, for the model's next message, and tell what is text in it.

        Args:
            messages: what was said so far, with `role` and `content`.
            tools: what the model may call.
            sight: what the template sees of the texts; see StandIns.
            think: whether the model is to think; None leaves it to the template.

        Returns:
            What the template has written, a text, what it has written, …, what it has written.

        Raises:
            RequestError: the template rejects the conversation, fails, or writes too much.
        """
        self._stand_ins = stand_ins = StandIns(self.source, sight)
        parts, length = [], 0
        try:
            hidden = {
                "messages": [_hide(one, stand_ins) for one in messages],
                "tools": stand_ins.hide(tools) or None,
            } | ({} if think is None else {SWITCH: think, "thinking": think})
            for part in self._template.generate(self._variables | hidden | {"add_generation_prompt": True}):
                parts.append(part)
                length += len(part)
                if length > PROMPT_CHARACTERS_MAX:
                    _raise(f"it has written more than {PROMPT_CHARACTERS_MAX} characters")
        except Exception as error:  # untrusted code raises anything
            reason = as_line(f"{type(error).__name__}: {stand_ins.show(str(error))}")
            raise RequestError(f"the chat template failed: {reason[:300]}") from None
        return stand_ins.split("".join(parts))

    def _to_json(self, *arguments: Any, **options: Any) -> str:
        return self._stand_ins.to_json(*arguments, **options)


def _hide(message: JsonObject, stand_ins: StandIns) -> dict[str, Any]:
    """A message with hidden texts, but for a role of ours, of which a template may make a token's name."""
    hidden = {name: stand_ins.hide(value) for name, value in message.items()}
    return hidden | ({"role": role} if (role := message.get("role")) in ROLES else {})


def _raise(message: str) -> None:
    raise TemplateError(message)
