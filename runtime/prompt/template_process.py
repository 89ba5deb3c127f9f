"""Chat template in a process of its own, so that no template can use up the memory or the time of this one.

Limits within this process would not do. A memory limit holds for all threads, and ends those that load or
compute. A time limit between lines of Python does not interrupt a single long operation.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock, Timer
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import finalize

from ...errors import FileError, RequestError
from ..forks import ForkCheck
from .prompt_encoder import PROMPT_CHARACTERS_MAX, JsonObject, Sight

if TYPE_CHECKING:
    from ...files.gguf.header import Header

SECONDS_MAX = 10.0  # to compile a template, or to render a conversation
REPRODUCIBLE_DATE = "2024-07-26"  # in prompts of batches; Llama 3.2's template has it where there is no clock
SOURCE_BYTES_MAX = 1 << 16  # published templates have at most a quarter of this
_REPLY_BYTES_MAX = 16 * PROMPT_CHARACTERS_MAX + 64  # of a part in JSON, a character has at most 12 bytes
_PROGRAM = "from thirteen.runtime.prompt.template_worker import main; main()"


class TemplateProcess:
    """A chat template and the process that renders it, which is started again when it has died.

    Attributes:
        source: the template, in Jinja.
        takes_tools: whether it uses the variable `tools`; False until it is compiled.
    """

    def __init__(
        self,
        source: str,
        tokens: tuple[str, str] = ("", ""),
        date: str | None = None,
        where: str = "",
        worker: "TemplateWorker | None" = None,
    ) -> None:
        """Start the process, unless it has been started.

        Args:
            source: the template, in Jinja.
            tokens: names of the begin-of-text and end-of-text tokens, which the template may write.
            date: the date that it may write, as in ISO 8601; by default today's.
            where: what the errors of the template begin with.
            worker: the process, which is ended with this.

        Raises:
            FileError: the source is too long, or the process cannot be started.
        """
        if (nbytes := len(source.encode("utf-8", "replace"))) > SOURCE_BYTES_MAX:
            raise FileError(f"{where}the chat template has {nbytes} bytes, more than {SOURCE_BYTES_MAX}")
        self.source, self.takes_tools = source, False
        bos, eos = tokens
        self._template, self._where = {"source": source, "bos": bos, "eos": eos, "date": date}, where
        self._lock = Lock()  # one conversation at a time
        self._process = worker or TemplateWorker()

    def compile(self) -> None:
        """Wait until the template is compiled.

        Raises:
            FileError: it is not a Jinja template, or takes too long or too much memory to compile.
        """
        with self._lock:
            self._running()

    def parts(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] = (),
        sight: Sight = "all",
        think: bool | None = None,
    ) -> list[str]:
        """Render a conversation; see ChatTemplate.parts().

        Raises:
            RequestError: the template rejects the conversation, fails, or exceeds a limit.
            FileError: compile() raises it.
        """
        with self._lock:
            try:
                reply = self._running().request(
                    {"messages": list(messages), "tools": list(tools), "sight": sight, "think": think}
                )
            except _ReplyError as error:
                raise RequestError(str(error)) from None
        if not isinstance(reply, list) or not all(isinstance(part, str) for part in reply):
            raise RequestError("the chat template failed: its process has replied with something else")
        return reply

    def close(self) -> None:
        """End the process; parts() would start another one."""
        with self._lock:
            self._process.close()

    def _running(self) -> "TemplateWorker":
        """The process with the compiled template."""
        if not self._process.alive:
            self._process = TemplateWorker()
        try:
            self.takes_tools = self._process.compile(self._template)
        except _ReplyError as error:
            raise FileError(f"{self._where}{error}") from None
        return self._process


class _ReplyError(Exception):
    """The process has replied with an error, or not at all."""


class TemplateWorker:
    """One run of template_worker.py. Started before the model is loaded, it need not be waited for."""

    def __init__(self) -> None:
        self._takes_tools: bool | None = None  # until it is compiled
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - own program
                [sys.executable, "-P", "-c", _PROGRAM],  # -P: no modules from the working directory
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows
            )
        except OSError as error:
            raise FileError(f"the chat template's process cannot be started: {error}") from None
        self._fork = ForkCheck()
        self.close = finalize(self, _end, self._popen)

    @property
    def alive(self) -> bool:
        """Whether it can be asked: it runs, and this process has started it."""
        return not self._fork.forked and self._popen.poll() is None

    def compile(self, template: dict[str, str | None]) -> bool:
        """Wait until the template is compiled, and return whether it takes tools."""
        if self._takes_tools is None:
            self._takes_tools = bool(self.request(template))
        return self._takes_tools

    def request(self, message: Any) -> object:
        """Send a line and return the result in the reply.

        Raises:
            _ReplyError: there is none; if the process has not replied in time, it has ended.
        """
        timer = Timer(SECONDS_MAX, self._popen.kill)
        timer.daemon = True
        started = perf_counter()
        timer.start()
        try:
            reply = self._exchange(json.dumps(message).encode() + b"\n")
        finally:
            timer.cancel()
        if not reply:
            self.close()
            late = perf_counter() - started >= SECONDS_MAX
            reason = f"more than {SECONDS_MAX:g} seconds" if late else "its process has died"
            raise _ReplyError(f"the chat template failed: {reason}")
        if "error" in reply:
            raise _ReplyError(str(reply["error"]))
        return reply["result"]

    def _exchange(self, line: bytes) -> dict[str, object]:
        """Return the reply to a line; empty if the process has died."""
        assert self._popen.stdin and self._popen.stdout, "both are pipes"
        try:
            self._popen.stdin.write(line)
            self._popen.stdin.flush()
            reply = json.loads(self._popen.stdout.readline(_REPLY_BYTES_MAX))
        except (OSError, ValueError):
            return {}
        except BaseException:  # Ctrl-C: the reply would be read as that to the next line
            self.close()
            raise
        return reply if isinstance(reply, dict) and reply.keys() & {"result", "error"} else {}


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # a line that was not read
            pipe.close()  # type: ignore[union-attr]


def read_chat_template(
    header: "Header",
    bos: int | None,
    eos: int | None,
    date: str | None = None,
    worker: TemplateWorker | None = None,
) -> TemplateProcess | None:
    """Start the template in a model's file, None if it has none, or a blank one.

    The template may write the tokens `bos` and `eos`, and the date; see TemplateProcess, also for `worker`.

    Raises:
        FileError: it is not a string, it is too long, or its process cannot be started.
    """
    source = header.metadata.get("tokenizer.chat_template", "")
    if not isinstance(source, str):
        raise FileError(f"{header.path}: metadata key 'tokenizer.chat_template' is not a string")
    if not source.strip():
        if worker:
            worker.close()
        return None
    tokens = header.metadata["tokenizer.ggml.tokens"]
    begin, end = ("" if token is None else tokens[token] for token in (bos, eos))
    return TemplateProcess(source, (begin, end), date, f"{header.path}: ", worker)
