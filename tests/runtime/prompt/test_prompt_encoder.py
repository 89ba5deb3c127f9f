"""Prompt encoder: conversations to tokens, with a chat template and without one."""

from typing import ClassVar

import pytest
from thirteen.errors import FileError, RequestError
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.control_tokens import ControlNames
from thirteen.runtime.prompt.prompt_encoder import (
    JSON_NESTING_MAX,
    Message,
    PromptEncoder,
    ToolCall,
    with_worked_examples,
)
from thirteen.runtime.prompt.question_prompt import PLAIN, QuestionPrompt

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{{ m.tool_calls | tojson }}{% endfor %}"
FIRST = "{{ messages[0].content }}"
USER = Message("user", "x")


class Bytes:
    """A tokenizer of bytes with some control tokens."""

    names = ("<|im_start|>", "<|im_end|>", "<s>", "[THINK]", "[/THINK]")
    control_tokens: ClassVar = {name: token for token, name in enumerate(names, 256)}

    def __init__(self, adds_bos=False, stripping=()):
        self.adds_bos, self.stripping_tokens = adds_bos, frozenset(stripping)

    def tokenize(self, text, *, special, bos):
        tokens = [self.control_tokens["<s>"]] * (bos and self.adds_bos)
        for piece in ControlNames(self.names if special else ()).split(text):
            tokens += [self.control_tokens[piece]] if special and piece in self.names else piece.encode()
        return tokens

    def token_to_piece(self, token):
        return bytes((token,)) if token < 256 else b""


def decode(tokens):
    """The text of tokens, with names of control tokens in brackets."""
    pieces = (
        f"[{Bytes.names[token - 256]}]".encode() if token > 255 else bytes((token,)) for token in tokens
    )
    return b"".join(pieces).decode()


def encoder(template=CHATML, vocabulary=None, **options):
    return PromptEncoder(vocabulary or Bytes(), ChatTemplate(template or "", bos="<s>"), **options)


def encode(question, encoder, system=None, prompt=PLAIN):
    """The prompt of a question, with names of control tokens in brackets."""
    return decode(encoder.encode_conversation(prompt.messages(question, system), begin=prompt.begin))


def test_names_of_control_tokens_in_a_question_are_text():
    for template, question, expected in (
        (CHATML, " a<|im_end|>\n", "[<|im_start|>]user\na<|im_end|>[<|im_end|>]\n[<|im_start|>]assistant\n"),
        (None, "q <s>", "q <s>"),
        ("<s>" + FIRST, "<s>", "[<s>]<s>"),
        ("{{ messages }}", "<|im_end|>", "[{'role': 'user', 'content': '<|im_end|>'}]"),
    ):
        assert encode(question, encoder(template)) == expected


@pytest.mark.parametrize("template", ["<s>" + FIRST, "{{ bos_token }}" + FIRST, FIRST, None])
def test_bos_is_there_once_whether_or_not_the_template_writes_it(template):
    assert encode("q", encoder(template, Bytes(adds_bos=True))) == "[<s>]q"


def test_some_control_tokens_take_the_white_space_after_them():
    """As those of Phi-3, whose template writes a line end after each."""
    template = f"<|im_start|>\n{FIRST}<|im_end|>\n<|im_start|>\n"
    prompt = encode("\t hi \n", encoder(template, Bytes(stripping=["<|im_start|>"])))
    assert prompt == "[<|im_start|>]hi \n[<|im_end|>]\n[<|im_start|>]"


def nested(depth):
    return {"a": nested(depth - 1)} if depth else {}


def calling(arguments):
    return Message("assistant", "", (ToolCall("1", "f", arguments),))


NO_TOOLS = "^tools: the model's chat template takes no tools$"


def test_what_is_empty_too_large_or_not_for_the_template_is_refused():
    for template, messages, tools, reason in (
        (CHATML, [Message("system", ""), Message("user", " \n")], [], "the conversation is empty"),
        (CHATML, [Message("user", "a" + " " * 1000)], [], "1016 bytes, but the context holds at most 1000"),
        (None, [Message("user", "a" + " " * 1000)], [], "1001 bytes, but the context holds at most 1000"),
        (TOOLS, [Message("tool", "x", tool_call_id="1" * 1001)], [], "bytes, but the context"),
        (TOOLS, [USER], [{"a": "x" * 1001}], "bytes, but the context"),
        (TOOLS, [USER], [nested(JSON_NESTING_MAX)], "nested more than 64 deep"),
        (TOOLS, [calling(nested(500))], [], "nested more than 64 deep"),
        (None, [USER], [{"name": "f"}], NO_TOOLS),
        (CHATML, [USER, calling({})], [], NO_TOOLS),
        (CHATML, [USER, Message("tool", "x", tool_call_id="1")], [], NO_TOOLS),
    ):
        with pytest.raises(RequestError, match=reason):
            encoder(template, bytes_max=1000).encode_conversation(messages, tools)
    fitting = nested(JSON_NESTING_MAX - 1)
    assert encoder(TOOLS, bytes_max=1000).encode_conversation([calling(fitting)], [fitting])


@pytest.mark.parametrize(("examples_max", "with_examples"), [(5000, True), (50, False)])
def test_without_a_template_a_question_follows_worked_examples_that_fit(examples_max, with_examples):
    turns = [("system", "Be brief."), ("user", "1?"), ("assistant", "2"), ("user", "3?")]
    said = [Message(*turn) for turn in turns]
    text = decode(encoder(None, examples_max=examples_max).encode_conversation(said))
    if with_examples:
        assert text.startswith("Question: A box") and text.count("\n\nQuestion: ") == 5
        assert text.endswith("\n\nBe brief.\n\nQuestion: 1?\nAnswer: 2\n\nQuestion: 3?\nAnswer:")
    else:
        assert text == "Be brief.\n\n1?\n\n2\n\n3?"


def test_worked_examples_come_between_the_system_prompt_and_the_question():
    system, *examples, question = with_worked_examples([Message("system", "s"), USER])
    assert (system.role, question) == ("system", USER)
    assert {one.role for one in examples} == {"user", "assistant"}


PROMPT = QuestionPrompt(
    'Be "brief".\nAlways. {% x %}', (("1 + 1?", "It is 2."), ("Größe?", "{{ 3 }}")), "Well, \\ "
)
EMPTY = QuestionPrompt(system="")
INJECTS = (  # a system prompt where there is none, as Qwen2.5's template
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nI am.<|im_end|>\n{% endif %}" + CHATML + "\n"
)


@pytest.mark.parametrize("source", [CHATML, INJECTS])
@pytest.mark.parametrize("prompt", [PROMPT, EMPTY, PLAIN, QuestionPrompt(begin="So")])
@pytest.mark.parametrize("system", [None, "Mine."])
def test_a_template_with_a_prompt_writes_what_the_prompt_does(source, prompt, system):
    expected = encode("2 + 2?", encoder(source), system, prompt)
    assert encode("2 + 2?", encoder(prompt.in_template(source, ["<|im_end|>"])), system) == expected
    assert expected.endswith(prompt.begin) and ("Mine." in expected) == bool(system)


def test_a_template_with_a_switch_can_be_told_otherwise():
    source = CHATML + "{{ 'think' if enable_thinking is not defined or enable_thinking }}"
    template = ChatTemplate(QuestionPrompt(think=False).in_template(source, []))
    turns = [{"role": "user", "content": "a"}]
    said = [template.render(turns, think=think).endswith("think") for think in (None, False, True)]
    assert said == [False, False, True]
    with pytest.raises(FileError, match="the chat template has no enable_thinking, so it cannot say false"):
        QuestionPrompt(think=False).in_template(CHATML, [])


def test_a_conversation_gets_the_prompt_before_its_first_question():
    template = encoder(PROMPT.in_template(CHATML, []))
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    text = decode(template.encode_conversation(turns))
    assert text.index("It is 2.") < text.index("user\na") and text.count("Always.") == 1


def test_a_system_prompt_of_the_user_replaces_that_of_the_prompt():
    user = Message("user", "1?")
    assert PLAIN.messages("1?") == PLAIN.messages("1?", "") == EMPTY.messages("1?", "") == [user]
    assert EMPTY.messages("1?") == [Message("system", ""), user]
    assert PROMPT.messages("1?", "Mine.")[0] == PLAIN.messages("1?", "Mine.")[0] == Message("system", "Mine.")


@pytest.mark.parametrize("prompt", [PROMPT, EMPTY, PLAIN, QuestionPrompt(think=False)])
def test_json_keeps_a_prompt(prompt, tmp_path):
    (tmp_path / "prompt.json").write_text(prompt.json)
    assert QuestionPrompt.read(tmp_path) == QuestionPrompt.read(tmp_path / "prompt.json") == prompt


@pytest.mark.parametrize("text", ["[]", '{"other": 1}', '{"begin": 1}', '{"examples": [["a"]]}'])
def test_another_file_is_one_line(tmp_path, text):
    (path := tmp_path / "prompt.json").write_text(text)
    with pytest.raises(FileError, match=r"prompt\.json[:.]"):
        QuestionPrompt.read(path)
    with pytest.raises(FileError, match="No such file"):
        QuestionPrompt.read(tmp_path / "none.json")


def test_a_template_gets_no_control_token_from_a_prompt():
    with pytest.raises(FileError, match=r"control token, .<\|im_end\|>.: a template"):
        QuestionPrompt(begin="a<|im_end|>").in_template(CHATML, ["<|im_start|>", "<|im_end|>"])
    with pytest.raises(FileError, match="chat template has 70385 bytes, more than 65536"):
        QuestionPrompt(begin="a" * 70000).in_template(CHATML, [])
