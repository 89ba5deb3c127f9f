"""Errors that a user can correct. The command line prints one as `error: …` and exits with status 2."""

import re
from collections.abc import Callable


class ThirteenError(Exception):
    """Base of all errors here. The message is one line that names what is wrong and where."""


class FileError(ThirteenError):
    """A file that is read is missing, damaged or unsupported, or does not fit another one or the memory."""


class OfflineError(FileError):
    """A file must be downloaded, and its host cannot be reached."""


class RequestError(ThirteenError):
    """A request cannot be run: an empty prompt, a number out of range, an unknown name."""


class ClosedError(ThirteenError):
    """An engine is asked after its close(), a failure, or the end of the process; no fault of the request.

    A server whose engine failed ends with it, and with the exit status 1: a new process may work.
    """


class OptionError(RequestError):
    """An option has a value that cannot be, or no effect.

    The command line words it with the flags of its command: `--size 1MB: …` for `size 1MB: …`.

    Attributes:
        name: the field or parameter in Python.
        reason: what is wrong; names of other options stand in braces.
        value: the value as it is quoted; None where it is not what is wrong.
    """

    def __init__(self, name: str, reason: str, value: object = None) -> None:
        self.name, self.reason, self.value = name, reason, None if value is None else str(value)
        super().__init__(name, reason, self.value)

    def text(self, word: Callable[[str], str]) -> str:
        """The message, in which `word` gives each option its word."""
        reason = re.sub(r"{(\w+)}", lambda option: word(option[1]), self.reason)
        return " ".join(filter(None, (word(self.name), self.value))) + f": {reason}"

    def __str__(self) -> str:
        """The message with the names of Python."""
        return self.text(str)


class PromptLengthError(RequestError):
    """A prompt is longer than the context."""


class BusyError(ThirteenError):
    """All slots are taken and the queue is full; the request may succeed later."""


class OutputError(ThirteenError):
    """An output cannot be written, or cannot be made: an unknown type, an impossible size."""


def install_hint(extra: str) -> str:
    """The end of an error about a package that comes with an extra of the project."""
    return f"install the extra `{extra}`: pip install '.[{extra}]' in the checkout"


def build_hint(option: str) -> str:
    """The command that compiles llama.cpp anew with an option."""
    install = "pip install --force-reinstall --no-deps --no-cache-dir 'llama-cpp-python>=0.3.36,<0.4'"
    return f"CMAKE_ARGS=-D{option}=ON {install}"


def refuse_options(options: object, reason: str, *names: str) -> None:
    """Refuse the options that are given although they would have no effect; the fields have their names.

    Raises:
        OptionError: one of them is neither None nor False.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value is not False:
            raise OptionError(name, reason)


def shorten(value: object) -> str:
    """The repr of a value as errors quote it: at most 60 characters."""
    return text if len(text := repr(value)) <= 60 else f"{text[:59]}…"


def as_line(text: str) -> str:
    """A text on one line: single spaces stand for white space and for characters that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def one_line(error: BaseException) -> str:
    """Type and message of another library's error, on one line of at most 300 characters."""
    return as_line(f"{type(error).__name__}: {error}")[:300]
