"""Errors that a user can correct. The command line prints one as `error: …` and exits with status 2."""


class ThirteenError(Exception):
    """Base of all errors here. The message is one line that names what is wrong and where."""


class FileError(ThirteenError):
    """A file that is read is missing, damaged, unsupported, or does not fit another one."""


class ZeroAdapterError(FileError):
    """An adapter changes nothing."""


class RequestError(ThirteenError):
    """A request cannot be run: an empty prompt, a number out of range, an unknown name."""


class PromptLengthError(RequestError):
    """A prompt is longer than the context."""


class BusyError(ThirteenError):
    """All slots are taken and the queue is full; the request may succeed later."""


class InsufficientMemoryError(ThirteenError):
    """A model needs more memory than is available with the requested context and slots."""


class EngineFailedError(ThirteenError):
    """The engine of a server failed; a new process may work. The exit status is 1."""


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
        RequestError: one of them is neither None nor False.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value is not False:
            raise RequestError(f"--{name.replace('_', '-')}: {reason}")


def shorten(value: object) -> str:
    """The repr of a value as errors quote it: at most 60 characters."""
    return text if len(text := repr(value)) <= 60 else f"{text[:59]}…"


def as_line(text: str) -> str:
    """A text on one line: single spaces stand for white space and for characters that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def one_line(error: BaseException) -> str:
    """Type and message of another library's error, on one line of at most 300 characters."""
    return as_line(f"{type(error).__name__}: {error}")[:300]
