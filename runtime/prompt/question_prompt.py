"""The prompt around a question: a system prompt, worked examples, and the beginning of the answer.

`learn` measures with which of them a model answers best. An adapter that was learned with them carries them
as JSON: PROMPT_FILE of its folder, PROMPT_KEY of its GGUF.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

from ...errors import FileError
from ...files.json_file import decode_utf8, from_json, parse_json, read_bounded
from ...files.received_files import PROMPT_FILE
from .chat_template import SOURCE_BYTES_MAX, SWITCH, ChatTemplate
from .control_tokens import ControlNames
from .prompt_encoder import Message, example_messages


@dataclass(frozen=True, slots=True)
class QuestionPrompt:
    """The prompt around a question."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # of JSON

    system: str | None = None  # system prompt, perhaps an empty one; None for that of the chat template
    examples: tuple[tuple[str, str], ...] = ()  # worked examples, each a question and its answer
    begin: str = ""  # beginning of the answer, which the model continues
    think: bool | None = None  # whether a model that can think does so; None leaves it to the chat template

    @classmethod
    @lru_cache(8)
    def parse(cls, text: str, where: str) -> Self:
        """Read a prompt from JSON (FileError: `where` …); an empty text is the plain question."""
        if not text:
            return cls()
        return from_json(cls, parse_json(text.encode(), where), where)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a prompt from a file, or from the folder of an adapter; see parse()."""
        path = path / PROMPT_FILE if path.is_dir() else path
        return cls.parse(decode_utf8(read_bounded(path, SOURCE_BYTES_MAX), str(path)), str(path))

    @property
    def is_bare(self) -> bool:
        """Whether no text stands around the question."""
        return replace(self, think=None) == PLAIN

    @property
    def json(self) -> str:
        """The prompt in JSON, without what is the default."""
        fields = asdict(self).items()
        return json.dumps({name: value for name, value in fields if value != getattr(PLAIN, name)})

    def messages(self, question: str, system: str | None = None) -> list[Message]:
        """The conversation that asks a question; a system prompt of the user's replaces its own."""
        shown = self.system if system is None else system or None
        first = [] if shown is None else [Message("system", shown)]
        return [*first, *example_messages(self.examples), Message("user", question)]

    def in_template(self, source: str, control_tokens: Sequence[str]) -> str:
        """A chat template that writes it around the first question of a conversation.

        FileError: a text has the name of a control token, the template has no switch for thoughts though the
        prompt needs one, or it becomes too long.
        """
        texts = [self.system or "", self.begin, *(text for pair in self.examples for text in pair)]
        if found := ControlNames(control_tokens).split("\n".join(texts))[1:2]:
            raise FileError(
                f"the prompt has the name of a control token, {found[0]!r}: a template would write it"
            )
        turns = [message.template_fields() for message in self.messages("")[:-1]]  # without the question
        system = self.system is not None
        shown, every = (json.dumps(some, ensure_ascii=False) for some in (turns[system:], turns))
        switch, think = "", str(self.think).lower()
        if self.think is not None:
            if SWITCH not in source:
                raise FileError(f"the prompt: the chat template has no {SWITCH}, so it cannot say {think}")
            switch = f"{{%- set {SWITCH} = {SWITCH} | default({think}) -%}}"
        before = (
            f"{switch}{{%- if messages and messages[0]['role'] == 'system' -%}}"
            f"{{%- set messages = messages[:1] + {shown} + messages[1:] -%}}"
            f"{{%- else -%}}{{%- set messages = {every} + messages -%}}{{%- endif -%}}"
            "{{- '' }}"
        )
        begin = json.dumps(self.begin, ensure_ascii=False)
        after = f"{{% if add_generation_prompt %}}{{{{ {begin} }}}}{{% endif %}}" if self.begin else ""
        return ChatTemplate(before + source.removesuffix("\n") + after).source


PLAIN = QuestionPrompt()
