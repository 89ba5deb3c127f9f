"""Chat template of a model: Jinja code from its file, rendered in Jinja's sandbox as `transformers` does.

It also says how a model thinks: between which markers it writes before its answer. Not read are <response> of
Granite 3 behind the thought, and the channels of gpt-oss and Gemma 4, which also name who a message is for.

The sandbox bounds what a template can reach, and this module what it writes. Nothing bounds its time and
memory here: a file from outside is tried before, in a process with limits.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...errors import FileError, RequestError, one_line

if TYPE_CHECKING:
    from ..llama.vocabulary import Vocabulary

Json = Any  # a JSON value
JsonObject = Mapping[str, Json]
PROMPT_LENGTH_MAX = 1 << 22  # bytes of a prompt's texts, and characters that a chat template makes of them
SOURCE_BYTES_MAX = 1 << 16  # published templates have at most a quarter of this
REPRODUCIBLE_DATE = "2024-07-26"  # in prompts of batches; Llama 3.2's template has it where there is no clock


# Qwen3, SmolLM3, DeepSeek-R1 and its distillations, QwQ, GLM; Magistral.
MARKERS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
SWITCH = "enable_thinking"  # the variable of chat templates
THINKING_MAX_TOKENS = 2048  # of a thought and its answer, where no other number is asked for
_MARKER_TOKENS = 16  # of a prompt, in which a marker at its end begins


class Thinking(NamedTuple):
    """How a model thinks."""

    opening: str  # marker of a thought's beginning
    closing: str
    opening_tokens: tuple[int, ...]  # tokens of the former; one, if the model was made to think
    ending_tokens: tuple[int, ...]  # tokens that end a thought
    control: Mapping[int, bytes]  # the markers that are control tokens, whose text a model does not give
    vocabulary: "Vocabulary"

    @classmethod
    def of(cls, template: str, vocabulary: "Vocabulary") -> Self | None:
        """How the model of a chat template thinks; None if the template names no markers of the table."""
        for opening, closing in MARKERS:
            if opening in template or closing in template:
                begin, end = (
                    tuple(vocabulary.tokenize(text, special=True, bos=False))
                    for text in (opening, f"\n{closing}\n\n")
                )
                names = vocabulary.control_tokens
                control = {names[name]: name.encode() for name in (opening, closing) if name in names}
                return cls(opening, closing, begin, end, control, vocabulary)
        return None

    def piece(self, token: int) -> bytes:
        """The bytes of a token, also of a marker."""
        return self.control.get(token) or self.vocabulary.token_to_piece(token)

    def begun(self, prompt: Sequence[int]) -> bool | None:
        """Whether a thought has begun at the end of a prompt, or False if one has ended; None if neither."""
        end = b"".join(map(self.piece, prompt[-_MARKER_TOKENS:])).decode("utf-8", "replace")
        return self._begun(end)

    def _begun(self, prompt: str) -> bool | None:
        text = prompt.rstrip()
        return True if text.endswith(self.opening) else False if text.endswith(self.closing) else None

    def without_thought(self, prompt: str) -> str:
        """The rest of an empty thought, to be written behind a prompt so that no other follows."""
        begun = self._begun(prompt)
        if begun is False:
            return ""
        return f"{self.closing}\n\n" if begun else f"{self.opening}\n\n{self.closing}\n\n"

    def answer(self, text: str) -> str:
        """An earlier answer without its thought, which a client may have sent back."""
        _, marker, rest = text.rpartition(self.closing)
        return rest.lstrip() if marker else text


class _Generation(Extension):
    """The tag `{% generation %}`, which marks text to train on; its body is rendered like any other."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class ChatTemplate:
    """A compiled chat template, with the extensions, filters and variables that it has in `transformers`."""

    def __init__(
        self, source: str, bos: str = "", eos: str = "", date: str | None = None, where: str = ""
    ) -> None:
        """Compile a template, which may write two tokens' names and a date in ISO 8601, by default today's.

        FileError, beginning with `where`: the source is too long, or not a Jinja template.
        """
        if (nbytes := len(source.encode("utf-8", "replace"))) > SOURCE_BYTES_MAX:
            raise FileError(f"{where}the chat template has {nbytes} bytes, more than {SOURCE_BYTES_MAX}")
        self.source = source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        day = datetime.fromisoformat(date) if date else None
        environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
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
        """Render a conversation, for the model's next message; `think` None leaves it to the template.

        RequestError: the template rejects the conversation, fails, or writes too much.
        """
        asked = {"messages": [*messages], "tools": [*tools] or None, "add_generation_prompt": True}
        switches = {} if think is None else {SWITCH: think, "thinking": think}
        try:
            prompt = self._template.render(self._variables | asked | switches)
            if len(prompt) > PROMPT_LENGTH_MAX:
                _raise(f"it has written more than {PROMPT_LENGTH_MAX} characters")
        except Exception as error:  # untrusted code raises anything
            raise RequestError(f"the chat template failed: {one_line(error)}") from None
        return prompt


def _raise(message: str) -> None:
    raise TemplateError(message)


def read_chat_template(vocabulary: "Vocabulary", date: str | None = None) -> ChatTemplate:
    """Compile the template in a model's file, with an empty source if there is no text; see ChatTemplate."""
    header = vocabulary.header
    source = header.metadata.get("tokenizer.chat_template", "")
    tokens = header.metadata["tokenizer.ggml.tokens"]
    bos, eos = ("" if token is None else tokens[token] for token in (vocabulary.bos, vocabulary.eos))
    has_template = isinstance(source, str) and source.strip()
    return ChatTemplate(source if has_template else "", bos, eos, date, f"{header.path}: ")
