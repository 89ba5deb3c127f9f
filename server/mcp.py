"""Model Context Protocol (MCP) over standard input and output: a model as tools of a desktop assistant."""

import asyncio
import os
import signal
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from ..errors import ThirteenError, as_line
from ..runtime.answer import COMPLETE_REASONS
from ..runtime.arithmetic import Step
from ..runtime.arithmetic.equations import read_equations
from ..runtime.engine.engine import Engine
from ..runtime.options import Effort, Options

QUESTION_CHARS_MAX = 1 << 15
TEXT_CHARS_MAX = 1 << 12  # as in /v1/check
_CLOSING_S = 1.0  # time to send the results of calls during which the engine failed
_READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


class Solution(BaseModel):
    """Result of the tool `solve`; see Answer."""

    value: str | None
    verified: bool
    grounded: bool
    confidence: float | None
    complete: bool
    steps: list[Step]
    text: str


class CheckedText(BaseModel):
    """Result of the tool `check_arithmetic`."""

    steps: list[Step]
    unchecked: list[str] = Field(
        description="Sentences with equations that could not be read with certainty."
    )


Question = Annotated[str, Field(min_length=1, max_length=QUESTION_CHARS_MAX, description="The word problem.")]
AnswerEffort = Annotated[
    Effort,
    Field(description="low: one answer; medium, high: the majority of up to 8 or 10 answers is taken."),
]
Text = Annotated[
    str, Field(max_length=TEXT_CHARS_MAX, description="A text with equations, such as 12 * 13 = 156.")
]


def create_server(engine: Engine, options: Options) -> MCPServer:
    """Create a server whose tools one engine runs; it must outlive the server.

    A client reads the docstrings of the tools as their descriptions.
    """
    server = MCPServer("thirteen", version=version("thirteen"), log_level="CRITICAL")

    @server.tool(annotations=_READS)
    async def solve(question: Question, effort: AnswerEffort = Effort.LOW) -> Solution:
        """Solve a word problem.

        Gives the final value, the reasoning, each equation in it with whether its arithmetic is right,
        whether all equations could be read, hold and lead to the value (verified), whether all of their
        numbers also stem from the problem (grounded), how likely the value is right (confidence), and whether
        the reasoning is complete: if it was cut off, the value may not be the final one.
        """
        try:
            request = await asyncio.to_thread(engine.request, question, replace(options, effort=effort))
            answer = await engine.submit(request)
            return Solution(**asdict(answer), complete=answer.stop_reason in COMPLETE_REASONS)
        except ThirteenError as error:  # of others, the SDK tells the client nothing
            raise ToolError(as_line(str(error))) from None

    @server.tool(annotations=_READS)
    async def check_arithmetic(text: Text) -> CheckedText:
        """Check the arithmetic of a text.

        Gives each equation with whether it is right, and unchecked what could not be read with certainty.
        """
        found = await asyncio.to_thread(read_equations, text)
        return CheckedText(steps=list(found.steps), unchecked=list(found.unread))

    return server


def serve_stdio(engine: Engine) -> None:
    """Serve until standard input ends; meanwhile nothing but the protocol is on standard output.

    When the engine has failed, the process ends with status 1, for the client to start it again.
    """
    # The SDK's reader keeps a process in which a signal raises something until the input ends.
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    asyncio.run(_serve(create_server(engine, Options()), engine))


async def _serve(server: MCPServer, engine: Engine) -> None:
    watching = asyncio.create_task(_end_if_failed(engine))
    await server.run_stdio_async()
    watching.cancel()


async def _end_if_failed(engine: Engine) -> None:
    while not engine.closed:
        await asyncio.sleep(_CLOSING_S)
    await asyncio.sleep(_CLOSING_S)
    print("error: the engine has failed: the server ends", file=sys.stderr, flush=True)
    os._exit(1)  # an exception would wait for the reader of the SDK, and so for the end of the input
