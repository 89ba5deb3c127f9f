"""Chat templates: rendered as transformers does, with one clear error for bad ones."""

import pytest
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.engine.chat_template import ChatTemplate


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% for x in %}", "{% unknown %}"])
def test_a_template_that_does_not_compile_is_an_error_of_the_file(source):
    with pytest.raises(ModelFileError, match="chat template"):
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
        template.render([{"role": "user", "content": "x"}])


def test_an_error_has_no_control_characters():
    with pytest.raises(RequestError, match=r"^the chat template failed: TemplateError: no \[31m é$"):
        ChatTemplate("{{ raise_exception('no \x1b[31m\u2028é\x00') }}").render([])


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
    assert ChatTemplate(source, "<s>", "</s>").render(messages) == expected
