"""Chat templates: rendered as transformers does, with one clear error for bad ones."""

import pytest
from thirteen.errors import FileError, RequestError
from thirteen.runtime.prompt.chat_template import ChatTemplate


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% for x in %}", "{% unknown %}"])
def test_a_template_that_does_not_compile_is_an_error_of_the_file(source):
    with pytest.raises(FileError, match="chat template"):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",  # CVE-2024-34359
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ('%s' | attr('format'))('x') }}{{ ''['__class__'] }}{{ raise_exception('no') }}",
        "{% include 'other' %}",
        "{{ 1 / 0 }}",
        "{{ 'a' * 100000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for a in range(100000000) %}{% endfor %}",  # the sandbox's own limit of a range
        "{% for a in range(90000) %}{{ 'a' * 1000 }}{% endfor %}",  # too many characters
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages[0].content.nothing.more }}",
        "{{ raise_exception('system role not supported') }}",
    ],
)
def test_a_hostile_or_failing_template_is_one_clear_error(source):
    template = ChatTemplate(source)
    with pytest.raises(RequestError, match=r"^the chat template failed: [^\n]+$"):
        template.parts([{"role": "user", "content": "x"}])


def test_an_error_has_no_control_characters():
    with pytest.raises(RequestError, match=r"^the chat template failed: TemplateError: no \[31m é$"):
        ChatTemplate("{{ raise_exception('no \x1b[31m\u2028é\x00') }}").parts([])


def test_templates_render_as_transformers_does():
    chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    source = (
        "{{- bos_token }}\n{%- if strftime_now is defined %}\n  {%- set year = strftime_now('%Y') %}\n"
        "{% endif %}\n"
        "{% for m in messages %}\n    {% if m['role'] == 'skip' %}{% continue %}{% endif %}\n"
        "  {{- {'é': [m.role]} | tojson }}{% generation %}{{ m['content'] | trim }}{% endgeneration %}\n"
        "{% endfor %}\n{{ tools is none }}{{ eos_token }}{% if add_generation_prompt %}>{% endif %}"
    )
    messages = [{"role": role, "content": f" {role} <b> "} for role in ("system", "skip", "user")]
    (expected,), _ = chat_template_utils.render_jinja_template(
        [messages], chat_template=source, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert "".join(ChatTemplate(source, "<s>", "</s>").parts(messages)) == expected


LLAMA_31 = (
    "{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}"
    "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}"
    "{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}{%- endif %}"
)
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "é <b>", "parameters": {"type": "object"}},
}


@pytest.mark.parametrize(
    ("source", "takes"),
    [
        ("{% for tool in tools or [] %}{{ tool }}{% endfor %}", True),
        ("{% if tools %}{% endif %}", True),
        ("{%- set t = tools or [] %}", True),
        (LLAMA_31, True),
        ("{% macro m(x) %}{{ x }}{{ tools }}{% endmacro %}{{ m(1) }}", True),
        ("{% for m in messages %}{{ m.tools }}{{ m['tools'] }}{% endfor %} tools {# tools #}", False),
        ("{% set tools = messages %}{{ tools }}", False),
        ("{% for tools in messages %}{{ tools }}{% endfor %}", False),
    ],
)
def test_a_template_takes_tools_if_it_uses_the_variable(source, takes):
    template = ChatTemplate(source)
    assert template.takes_tools == takes
    messages = [{"role": "user", "content": "x"}]
    assert (template.parts(messages) != template.parts(messages, [TOOL])) <= takes


@pytest.mark.parametrize("tools", [None, [TOOL]])
def test_tools_and_their_calls_render_as_in_transformers(tools):
    chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    source = (
        LLAMA_31
        + "{% for m in messages %}{{ m.content }}{{ m.tool_calls | default([]) | tojson }}{% endfor %}"
    )
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1.5, "é"]}}}
    messages = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x", "tool_call_id": "1"},
    ]
    (expected,), _ = chat_template_utils.render_jinja_template(
        [messages], tools=tools, chat_template=source, add_generation_prompt=True
    )
    assert "".join(ChatTemplate(source).parts(messages, tools or ())) == expected
