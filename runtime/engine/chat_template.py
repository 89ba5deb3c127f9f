"""Chat templates: conversations to prompt tokens, rendered in a sandbox."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...errors import ModelFileError, RequestError
from ...files.gguf_header import Header
from .sandbox import limited, limited_memory

PROMPT_CHARACTERS_MAX = 1 << 22  # of a rendered prompt, and of any text that a template multiplies
POWER_MAX = 1 << 10
MARKS = range(0xF0000, 0x10FFFE)  # characters for private use, of which no tokenizer or template knows any


class Vocabulary(Protocol):
    """What is asked of a model to turn text into tokens."""

    @property
    def control_tokens(self) -> dict[str, int]:
        """The control tokens by name."""

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """The tokens of a text; see llama.Model."""


class _Generation(Extension):
    """The tag `{% generation %}`, which marks what to train on; here its body is simply part of the text."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own way of saying it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses products that would fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            size, most = max(abs(left), abs(right)), POWER_MAX
        else:
            size, most = _repeated(left, right) or _repeated(right, left), PROMPT_CHARACTERS_MAX
        if size > most:
            raise SecurityError(f"{operator} makes more than a prompt needs")
        return super().call_binop(context, operator, left, right)


def _repeated(what: Any, times: Any) -> int:
    return len(what) * times if isinstance(what, Sized) and isinstance(times, int) else 0


class ChatTemplate:
    """A model's own template for prompts: code from strangers, run in a sandbox.

    It renders as `transformers` does: the same extensions, filters and variables.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        """Compile the template; `bos` and `eos` are the names of the tokens it may write.

        Raises:
            ModelFileError: it is not a Jinja template.
        """
        self.source = source
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._variables = {"bos_token": bos, "eos_token": eos, "tools": None, "documents": None}
        try:
            with limited_memory():  # constant expressions are computed here
                self._template = environment.from_string(source)
        except Exception as error:  # Jinja's own, and those of the Python that it becomes
            raise ModelFileError(f"the chat template cannot be compiled: {_one_line(error)}") from None

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt of a conversation, up to where the model's answer begins.

        Raises:
            RequestError: the template refuses the conversation, fails, or does what a template may not.
        """
        parts, length = [], 0
        variables = {"messages": messages, "add_generation_prompt": True, **self._variables}
        try:
            with limited():
                for part in self._template.generate(variables):
                    parts.append(part)
                    length += len(part)
                    if length > PROMPT_CHARACTERS_MAX:
                        _raise(f"it has written more than {PROMPT_CHARACTERS_MAX} characters")
        except Exception as error:  # whatever a stranger's code raises
            raise RequestError(f"the chat template failed: {_one_line(error)}") from None
        return "".join(parts)


def read_chat_template(header: Header, bos: int | None, eos: int | None) -> ChatTemplate | None:
    """The template in a model's file, None if it has none; it may write the tokens `bos` and `eos`.

    Raises:
        ModelFileError: it is not a text, or not a Jinja template.
    """
    source = header.metadata.get("tokenizer.chat_template")
    if source is None:
        return None
    if not isinstance(source, str):
        raise ModelFileError(f"{header.path}: metadata key 'tokenizer.chat_template' is not a text")
    tokens = header.metadata["tokenizer.ggml.tokens"]
    try:
        return ChatTemplate(source, *("" if token is None else tokens[token] for token in (bos, eos)))
    except ModelFileError as error:
        raise ModelFileError(f"{header.path}: {error}") from None


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@dataclass(frozen=True, slots=True)
class Message:
    """What someone said in a conversation; `role` is the template's word for who: system, user, assistant."""

    role: str
    content: str


class PromptEncoder:
    """Questions to tokens, by a model's chat template or, where it has none, as they are.

    A text from outside never becomes a control token. In it, every name of one is broken by a mark, a
    character that stands nowhere else; so after rendering, only names that the template wrote are whole. What
    lies between them is cleared of marks and tokenized as plain text. A text without such names reaches the
    template unchanged.
    """

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate | None) -> None:
        self._vocabulary, self._template = vocabulary, template
        names = sorted(
            vocabulary.control_tokens, key=len, reverse=True
        )  # the longest that fits, as tokenizers do
        self._names = "|".join(map(re.escape, names)) or r"(?!)"

    @property
    def templated(self) -> bool:
        """Whether there is a chat template."""
        return self._template is not None

    def tokens(self, question: str, system: str | None = None) -> tuple[int, ...]:
        """The prompt of a question.

        Raises:
            RequestError: the question is empty, or the template does not take it.
        """
        if not question.strip():
            raise RequestError("the question is empty")
        asked = Message("user", question)
        return self.conversation([Message("system", system), asked] if system else [asked])

    def conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The prompt of a conversation, up to where the model's next answer begins.

        Raises:
            RequestError: nothing is said in it, or the template does not take it.
        """
        if not any(message.content.strip() for message in messages):
            raise RequestError("the conversation is empty")
        texts = [text for message in messages for text in (message.role, message.content)]
        _check_length(sum(len(message.content) for message in messages))
        if self._template is None:
            return self.plain("\n\n".join(message.content for message in messages))
        mark = _mark_for(self._template.source, *texts)
        broken = [
            {"role": self._broken(said.role, mark), "content": self._broken(said.content, mark)}
            for said in messages
        ]
        return self._with_bos(self._encoded(self._template.render(broken), mark))

    def plain(self, text: str) -> tuple[int, ...]:
        """The prompt that is a text and nothing around it but what the model's tokenizer begins with."""
        _check_length(len(text))
        return tuple(self._vocabulary.tokenize(text, special=False, bos=True))

    def _broken(self, text: str, mark: str) -> str:
        return re.sub(self._names, lambda name: name[0][0] + mark + name[0][1:], text)

    def _encoded(self, prompt: str, mark: str) -> Iterator[int]:
        parts = re.split(f"({self._names})(?!{mark})", prompt)  # text, name, text, name, …, text
        for text, name in zip(parts[::2], [*parts[1::2], None], strict=True):
            yield from self._vocabulary.tokenize(text.replace(mark, ""), special=False, bos=False)
            if name is not None:
                yield self._vocabulary.control_tokens[name]

    def _with_bos(self, tokens: Iterable[int]) -> tuple[int, ...]:
        """The tokens, begun as the model's tokenizer begins a text, unless the template did that already."""
        begin, tokens = tuple(self._vocabulary.tokenize("", special=False, bos=True)), tuple(tokens)
        return tokens if tokens[: len(begin)] == begin else begin + tokens


def _check_length(characters: int) -> None:
    if characters > PROMPT_CHARACTERS_MAX:
        raise RequestError(
            f"the question has {characters} characters; at most {PROMPT_CHARACTERS_MAX} are read"
        )


def _mark_for(*texts: str) -> str:
    used = set().union(*texts)
    mark = next((chr(code) for code in MARKS if chr(code) not in used), None)
    if mark is None:
        raise RequestError("the question uses every character that Unicode has for private use")
    return mark
