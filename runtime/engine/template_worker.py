"""Program of the process that renders a chat template under limits; template_process.py starts it.

It reads lines of JSON and writes one for each: first for the template, whether it takes tools, then for
conversations, their prompts.
"""

import json
import os
import signal
import sys
from math import ceil
from time import process_time
from typing import Any

from ...errors import ThirteenError
from .chat_template import ChatTemplate

try:
    import resource
except ImportError:  # Windows: only the time is limited there
    resource = None  # type: ignore[assignment]

BYTES_MAX = 1 << 28  # of address space beyond what the process has at its start
SECONDS_MAX = 10  # of one conversation


def main() -> None:
    """Compile the template of the first line, and render the conversations of the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that started this one
    _limit_resources()
    template: ChatTemplate | None = None
    for line in sys.stdin.buffer:
        _limit_processor_time()
        try:
            if template is None:
                template = ChatTemplate(**json.loads(line))
                _write({"result": template.takes_tools})
            else:
                _write({"result": template.render(**json.loads(line))})
        except ThirteenError as error:
            _write({"error": str(error)})
        except MemoryError:
            _write({"error": f"the chat template failed: more than {BYTES_MAX} bytes"})


def _write(reply: dict[str, str | bool]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


def _limit_resources() -> None:
    """Take away most memory, and what no template needs: files and further processes."""
    if resource is None:
        return
    for name in ("RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_CORE"):
        _lower(getattr(resource, name, None), 0)
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
        _lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + BYTES_MAX)


def _limit_processor_time() -> None:
    """End this process if one line takes too long, even when nobody waits for its reply any more."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (ceil(process_time()) + SECONDS_MAX, hard))


def _lower(limit: Any, value: int) -> None:
    if limit is not None:
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
