"""`thirteen chat`: lines from a pipe, and a person at a terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
from time import monotonic

import pytest
from thirteen.cli.chat import ChatSession
from thirteen.models.embedded import embedded
from thirteen.runtime.engine import dispatcher
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.options import Options

from ..runtime.conftest import typed, write_gguf
from ..runtime.fakes import TEMPLATES, ScriptedSampler
from ..runtime.gguf_adapters import write_lora

pytestmark = pytest.mark.slow

TIMEOUT_S = 120


def chat(thirteen, model, *lines, options=()):
    arguments = ("chat", model, "--max-tokens", "8", "--context", "256", "--threads", "1", *options)
    return thirteen(*arguments, stdin="\n".join(lines).encode(errors="surrogateescape"))


def test_each_line_of_standard_input_gets_an_answer(thirteen, tiny):
    """Bytes that are not text are replaced."""
    done = chat(
        thirteen, tiny, "a question of some length to begin with", "", "caf\udce9?", "/reset", "three"
    )
    assert done.status == 0 and done.stdout.count("answer: ") == 3, done


def test_a_thought_is_told_in_a_line(tmp_path, monkeypatch, capfd):
    keys = {"tokenizer.chat_template": typed(TEMPLATES["qwen3"]), "llama.context_length": typed(512)}
    monkeypatch.setattr(dispatcher, "Sampler", ScriptedSampler)
    monkeypatch.setattr(ScriptedSampler, "scripts", ["<think>\na\n\nb\n</think>\n\nIt is 7."])
    with Engine(write_gguf(tmp_path / "tiny.gguf", keys, {}), threads=1) as engine:
        session = ChatSession(engine, Options(max_tokens=200), interactive=False)
        session.run(iter(["2?"]))
    out, err = capfd.readouterr()
    assert out == "It is 7.\nanswer: 7\n\n" and "(thought for 23 tokens)" in err
    assert [one.content for one in session.conversation.messages] == ["2?", "It is 7."]


def test_commands(thirteen, tiny):
    settings = {
        "/adapter base": "adapter: base",
        "/system Be brief.": "system prompt: Be brief.",
        "/system": "system prompt: that of the model",
        "/reset": "the conversation is forgotten",
    }
    done = chat(thirteen, tiny, "/help", "/effort medium", "two and 2", *settings, "quit", "never")
    assert done.status == 0 and "/adapter" in done.stderr and "votes: " in done.stderr, done
    assert done.stderr.splitlines()[-len(settings) :] == list(settings.values())
    assert done.stdout.count("answer: ") <= 1


def test_adapters_are_chosen_while_the_chat_runs(thirteen, tiny, tmp_path):
    lora = write_lora(tmp_path / "one.gguf", 1)
    lines = [line for choice in ("base", "one", "base") for line in (f"/adapter {choice}", "Why?", "/reset")]
    done = chat(thirteen, tiny, *lines, options=("--adapter", f"one={lora}"))
    assert done.status == 0, done
    base, adapted, again = re.split(r"\nanswer: .*\n\n", done.stdout)[:-1]
    assert base == again != adapted


def test_a_wrong_line_ends_a_chat_without_a_terminal(thirteen, tiny):
    for line, problem in (
        ("/nothing", "/nothing is no command; /help lists them"),
        ("/effort 3", "effort must be low, medium, high, not '3'"),
        ("/adapter x", "adapter 'x': the chat was started with base; see --adapter"),
        ("x" * 2000, "the message does not fit"),
    ):
        assert problem in chat(thirteen, tiny, line).error


def test_ctrl_c_ends_a_chat_that_nobody_reads(tiny, monkeypatch):
    """It went on with the next line, and its status was 0."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "submit", interrupted)
    with Engine(tiny, context=256, threads=1) as engine:
        session = ChatSession(engine, Options(max_tokens=4), interactive=False)
        with pytest.raises(KeyboardInterrupt):
            session.run(iter(["one", "two"]))


class Terminal:
    """A chat in a terminal of its own."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "thirteen", "chat", *map(str, arguments)]
        environment = os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.text = ""

    def type(self, text):
        os.write(self.master, text.encode())

    def interrupt(self, pattern):
        """Press Ctrl-C until the output has a match: Python may drop one that comes within a callback."""
        for _ in range(20):
            self.process.send_signal(signal.SIGINT)
            if self.comes(pattern, 1):  # an answer takes about four seconds
                return
        pytest.fail(self.text)

    def comes(self, pattern, seconds):
        """Read until the output since the last match has one, or the time is over."""
        end = monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            if not select.select([self.master], [], [], max(end - monotonic(), 0))[0]:
                return False
            self.text += os.read(self.master, 4096).decode("utf-8", "replace")
        self.text = self.text[found.end() :]
        return True

    def wait_for(self, pattern):
        assert self.comes(pattern, TIMEOUT_S), f"no {pattern!r} in {self.text!r}"


def test_a_person_edits_lines_stops_an_answer_and_goes_on():
    terminal = Terminal(embedded(), "--max-tokens", "400", "--threads", "1", "--context", "512")
    terminal.wait_for("/help lists the commands")
    terminal.wait_for(">")
    terminal.type("Tell a long storyx\x7f.\r")  # the last letter is deleted
    terminal.wait_for(r"\x1b\[\?2004l")  # the editor has let go of the terminal
    terminal.wait_for("[a-z]+ [a-z]+ ")
    terminal.interrupt("stopped; an unfinished answer is not kept")
    terminal.type("/effort nonsense\r")
    terminal.wait_for("error: effort must be")
    terminal.type("Repeat exactly: 12 * 13 =\r")
    terminal.wait_for("= 156")
    terminal.wait_for("1 sum checked; the reasoning was not")
    terminal.wait_for("answer: ")
    terminal.wait_for(r"\x1b\[\?2004h")  # the editor has the terminal again
    terminal.type("\x04")
    assert terminal.process.wait(TIMEOUT_S) == 0
