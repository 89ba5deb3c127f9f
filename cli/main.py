"""The command `thirteen`. Each subcommand imports its packages late, to keep `--help` fast.

Results go to standard output, progress and logs to standard error. The exit status is 0 for success, 2 for
bad input, with one line `error: …`, 1 for a server whose engine failed or a check that found something wrong,
130 for an interrupt, and 128 plus its number for another signal.
"""

import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer import Option

from ..errors import ClosedError, ThirteenError
from . import adapter, ask, batch, bench, chat, convert, demo, doctor, learn, models, serve  # noqa: F401 - each module adds its commands
from .application import app
from .console import end_wait, err, printable

ENGINE_FAILED = 1  # for supervisors: a restart may help, which bad input (2) does not allow
INTERRUPTED = 130
MESSAGE_MAX = 600  # characters of an error; names from a damaged file can be very long

# click's class, of which some versions of typer bundle a copy.
ClickError: type[Any] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line; errors that a user can fix become one line and an exit status."""
    _print_any_text()
    _handle_signals()
    try:
        try:
            status = app(prog_name="thirteen", standalone_mode=False) or 0
        except SystemExit as end:  # typer's, for a broken pipe
            if isinstance(end.__context__, BrokenPipeError):
                _end_without_reader()
            raise
        finally:
            end_wait()
        sys.stdout.flush()
        if status == INTERRUPTED:  # some versions of typer return it as a status
            _end_interrupted()
        sys.exit(status)
    except ThirteenError as error:
        _fail(str(error), ENGINE_FAILED if isinstance(error, ClosedError) else 2)
    except ClickError as error:
        context = getattr(error, "ctx", None)  # of a wrong option or argument
        hint = f" (see {context.command_path} --help)" if context else ""
        message = error.format_message().replace("Value error, ", "")  # by the validator behind typer
        _fail(message.rstrip(".") + hint)
    except BrokenPipeError:
        _end_without_reader()
    except _Terminated as terminated:
        signal.signal(terminated.args[0], signal.SIG_IGN)
        err.print("terminated")
        sys.exit(128 + int(terminated.args[0]))
    except (KeyboardInterrupt, typer.Abort):
        _end_interrupted()
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        _fail("out of memory")


def _end_without_reader() -> None:
    """End after the reader, such as `head`, closed the pipe: what is left in the buffers is discarded."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _end_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in _terminate()
    err.print("interrupted")
    sys.exit(INTERRUPTED)


class _Terminated(BaseException):
    """SIGTERM or SIGHUP: what is half written is removed, as after Ctrl-C."""


def _terminate(number: int, _: object) -> None:
    # `timeout` sends two: the second would be a traceback, and one that is pending must find a function.
    signal.signal(number, lambda *_: None)
    raise _Terminated(number)


def _handle_signals() -> None:
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP; under nohup it is ignored
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _fail(message: str, status: int = 2) -> None:
    line = printable(" ".join(message.split()))
    if len(line) > MESSAGE_MAX:
        line = f"{line[: MESSAGE_MAX // 2]} … {line[-MESSAGE_MAX // 2 :]}"
    with suppress(OSError):  # a full disk, or a pipe without a reader, may be the error itself
        sys.stdout.flush()
    err.print(f"error: {line}", markup=False, soft_wrap=True)
    sys.exit(status)


def _print_any_text() -> None:
    """Print characters that the terminal's encoding lacks, and bytes of file names, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _version(context: typer.Context, requested: bool) -> None:
    if requested and not context.resilient_parsing:  # a shell completes the line
        from importlib.metadata import version

        print(f"thirteen {version('thirteen')}")
        context.exit()


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Convert, run and measure language models with small adapters on your own hardware."""
