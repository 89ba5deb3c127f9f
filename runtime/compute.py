"""The one thread of a process that computes: engines take turns in it, one step at a time.

OpenMP gives every thread that opens a parallel region its own team of workers. With two such threads, libgomp
counts more workers than processors and lets them sleep at barriers instead of spinning, which halved the
speed of a small model on two cores. So everything that may open a parallel region runs here: batches,
contexts, and loading, where llama.cpp repacks weights.

Native handles are loaded and freed here too: what is freed after an interrupted call is freed after the call.

A ThreadPoolExecutor would do but for Ctrl-C: it can leave a lock of `threading.Condition` taken in the thread
that submits or waits, and then the other one waits for ever. Simple queues have no such lock.
"""

import atexit
import os
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import ClosedError, FileError

if TYPE_CHECKING:
    from .llama.llama_cpp_library import ErrorLog

T = TypeVar("T")
_functions: "SimpleQueue[Callable[[], object]]" = SimpleQueue()
_ended: "SimpleQueue[None]" = SimpleQueue()
_starting = Lock()
_process = 0  # id of the process that has started the thread
_thread = 0  # id of the thread
_ending = False


def check_open() -> None:
    """Raise ClosedError in a process that was forked from one that computes: it has no such thread."""
    if _process not in {0, os.getpid()}:
        raise ClosedError(
            "this process was forked after a model had been loaded: load the model in a process that is "
            "started by 'spawn' (multiprocessing's start method)"
        )


def post(function: Callable[[], object]) -> None:
    """Run a function between two steps of the engines; what it raises is dropped. ClosedError at the end."""
    global _process  # noqa: PLW0603 - like the thread, there is one in a process
    check_open()
    if _ending:
        raise ClosedError("the process is ending and computes nothing any more")
    with _starting:
        if not _process:
            start_new_thread(_run, ())
            _process = os.getpid()
    _functions.put(function)


def call(function: Callable[[], T]) -> T:
    """Run a function between two steps, and return its result.

    After Ctrl-C the function still runs to its end; what is called or freed next comes after it.
    """
    if get_ident() == _thread:
        return function()
    results: SimpleQueue[Future[T]] = SimpleQueue()

    def run() -> None:
        result: Future[T] = Future()
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)
        results.put(result)

    post(run)
    return results.get().result()


def _run() -> None:
    global _thread  # noqa: PLW0603 - see post()
    _thread = get_ident()
    while not _ending:
        with suppress(Exception):
            _functions.get()()
    _ended.put(None)


@atexit.register
def _end() -> None:
    global _ending  # noqa: PLW0603 - see post()
    _ending = True
    if _process == os.getpid():
        _functions.put(lambda: None)
        _ended.get()


class NativeHandle:
    """Owner of a native handle, freed by close() or at the end of a with block."""

    def __init__(self) -> None:
        self._owned = ExitStack()
        self._handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(
        self, load: Callable[[], Any], free: Callable[[Any], None], log: "ErrorLog", what: object
    ) -> None:
        """Load a handle in the compute thread and own it, or free everything owned and raise FileError."""

        def take() -> None:
            log.install()
            handle = load()
            if not handle:
                raise FileError(f"{what}: {log.take_errors()}")
            self._handle = handle
            self._owned.callback(free, handle)

        with ExitStack() as undo:
            undo.callback(self.close)
            call(take)
            undo.pop_all()

    @property
    def handle(self) -> Any:
        """The handle; ClosedError if it was freed: the library would crash."""
        if self._handle is None:
            raise ClosedError(f"the {type(self).__name__.lower()} is closed")
        return self._handle

    def close(self) -> None:
        """Free everything owned, behind what was called before; a second call does nothing."""
        with suppress(ClosedError):  # the process is ending and frees everything, or the parent owns it
            call(self._close)

    def _close(self) -> None:
        self._handle = None
        self._owned.close()
