"""Template process: limits on time and memory that touch nothing else, and a new process after a death."""

import os
import signal
import sys
from time import perf_counter

import pytest
from gguf.constants import GGUFValueType
from thirteen.errors import FileError, RequestError
from thirteen.files.gguf.header import Field, Header
from thirteen.runtime.prompt import template_process
from thirteen.runtime.prompt.template_process import (
    REPRODUCIBLE_DATE,
    SOURCE_BYTES_MAX,
    TemplateProcess,
    TemplateWorker,
    read_chat_template,
)

resource = pytest.importorskip("resource", reason="Windows limits the time only")
MESSAGES = [{"role": "user", "content": "a \ud800 <b> é"}]
# More than a minute in one operation each: nothing between lines of Python could stop them.
ENDLESS = [
    "{% set n = namespace(x=7) %}{% for i in range(26) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x % 3 }}",
    "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
]
GREEDY = [
    "{{ [0] * 100000000 }}",
    "{% set n = namespace(x='ab') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{{ '%999999999d' % 1 }}",
    "{{ 'a'.ljust(999999999) }}",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_an_endless_template_is_ended(monkeypatch, source):
    template = TemplateProcess(source)
    template.compile()
    monkeypatch.setattr(template_process, "SECONDS_MAX", 0.5)
    started = perf_counter()
    with pytest.raises(RequestError, match=r"^the chat template failed: more than 0\.5 seconds$"):
        template.parts(MESSAGES)
    assert perf_counter() - started < 10


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
@pytest.mark.parametrize("source", GREEDY)
def test_a_template_that_takes_memory_fails_and_this_process_has_no_limit(source):
    before = resource.getrlimit(resource.RLIMIT_AS)
    template = TemplateProcess(source)
    for _ in range(2):
        with pytest.raises((FileError, RequestError), match=r"^the chat template (failed|cannot)[^\n]+$"):
            template.parts(MESSAGES)  # Jinja computes constants when it compiles
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_process_that_was_started_early_serves_a_template():
    early = TemplateWorker()
    template = TemplateProcess("{{ messages[0].content }}", worker=early)
    assert template.parts(MESSAGES) == ["", MESSAGES[0]["content"], ""]
    assert early.compile({}) is False, "it has compiled the template"


def test_a_process_that_has_died_is_started_again():
    template = TemplateProcess("{{ messages[0].content }}")
    for _ in range(3):
        assert template.parts(MESSAGES) == ["", MESSAGES[0]["content"], ""]
        os.kill(template._process._popen.pid, signal.SIGKILL)
        template._process._popen.wait()


def test_modules_of_the_working_directory_are_not_imported(tmp_path, monkeypatch):
    """Python puts it first on its path for a program given with -c."""
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert TemplateProcess("{{ messages[0].content }}").parts(MESSAGES) == ["", MESSAGES[0]["content"], ""]


def test_an_unreferenced_template_leaves_no_process():
    process = TemplateProcess("x")._process._popen
    assert process.poll() is not None


@pytest.mark.parametrize("source", ["", " \n"])
def test_a_blank_template_is_none(tmp_path, source):
    """The prompt was blank, whatever the question."""
    header = Header(tmp_path, 3, {"tokenizer.chat_template": Field(source, GGUFValueType.STRING)}, {}, 0)
    assert read_chat_template(header, None, None) is None


def test_a_source_of_more_than_64_kibibytes_is_refused():
    assert TemplateProcess("x" * SOURCE_BYTES_MAX).parts(MESSAGES) == ["x" * SOURCE_BYTES_MAX]
    with pytest.raises(FileError, match="65537 bytes, more than 65536"):
        TemplateProcess("x" * (SOURCE_BYTES_MAX + 1))


def test_it_tells_whether_the_template_takes_tools_and_renders_them():
    template = TemplateProcess("{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}")
    assert not template.takes_tools
    template.compile()
    assert template.takes_tools
    tools = [{"name": "é \ud800", "parameters": {"a": [1, None]}}]
    assert "".join(template.parts(MESSAGES, tools)) == '{"name": "é \ud800", "parameters": {"a": [1, null]}}'
    assert template.parts(MESSAGES) == [""]
    template.close()
    other = TemplateProcess("x")
    other.compile()
    assert not other.takes_tools


def test_a_date_can_be_fixed():
    """A batch that was resumed the next day had other prompts."""
    template = TemplateProcess("{{ strftime_now('%d %b %Y') }}", date=REPRODUCIBLE_DATE)
    assert template.parts(MESSAGES) == ["26 Jul 2024"]
