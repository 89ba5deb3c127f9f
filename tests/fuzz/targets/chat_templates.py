"""Chat templates, compiled and rendered in this process.

A timer ends one that takes too much time, and the limit of fuzz_target.py one that takes too much memory, so
that the next one can be tried.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from thirteen.errors import ThirteenError
from thirteen.runtime.prompt.chat_template import PROMPT_LENGTH_MAX, ChatTemplate

from ..target import ADDRESS_SPACE_BYTES, Target, refused

_SECONDS = 0.3
_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Tom has 3 <apples>.\n"},
    {"role": "assistant", "content": "é 🙂"},
]


class _TimeUpError(BaseException):
    """No Exception: a template must not be able to catch it."""


def check(data: bytes) -> bool:
    messages = deepcopy(_MESSAGES)
    try:
        with _timer():
            template = ChatTemplate(data.decode("utf-8", "replace"), "<s>", "</s>")
            text = template.render(messages)
    except ThirteenError as error:
        return refused(error)
    except _TimeUpError:
        return False
    finally:
        assert messages == _MESSAGES, "a template changes nothing"
    assert len(text) <= PROMPT_LENGTH_MAX
    return True


@contextmanager
def _timer() -> Iterator[None]:
    previous = signal.signal(signal.SIGVTALRM, _time_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def _time_up(*_: object) -> None:
    raise _TimeUpError


TARGET = Target(check, max_bytes=512, memory_bytes_max=ADDRESS_SPACE_BYTES)
