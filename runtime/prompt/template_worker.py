"""Program of the process that renders a chat template under limits; template_process.py starts it.

It reads lines of JSON and writes one for each: first for the template, whether it takes tools, then for
conversations, the parts of their prompts.
"""

import json
import signal
import sys

from ...errors import ThirteenError
from ..machine.resource_limits import limit_address_space, limit_processor_time, lower_limit
from .chat_template import ChatTemplate

BYTES_MAX = 1 << 28  # of address space beyond what the process has at its start
SECONDS_MAX = 10  # of one conversation


def main() -> None:
    """Compile the template of the first line, and render the conversations of the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that started this one
    for name in ("RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_CORE"):  # no template needs files or processes
        lower_limit(name, 0)
    limit_address_space(BYTES_MAX)
    template: ChatTemplate | None = None
    for line in sys.stdin.buffer:
        limit_processor_time(SECONDS_MAX)  # ends it even when nobody waits for the reply any more
        try:
            if template is None:
                template = ChatTemplate(**json.loads(line))
                _write({"result": template.takes_tools})
            else:
                _write({"result": template.parts(**json.loads(line))})
        except ThirteenError as error:
            _write({"error": str(error)})
        except MemoryError:
            _write({"error": f"the chat template failed: more than {BYTES_MAX} bytes"})


def _write(reply: dict[str, str | bool | list[str]]) -> None:
    print(json.dumps(reply), flush=True)
