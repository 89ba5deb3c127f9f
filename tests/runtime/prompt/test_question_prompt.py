"""What stands around a question: as messages, as JSON, in a chat template, and with an adapter."""

import pytest
from thirteen.errors import FileError
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.prompt_encoder import Message
from thirteen.runtime.prompt.question_prompt import PLAIN, QuestionPrompt

from .test_prompt_encoder import CHATML, decode, encode, encoder

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
