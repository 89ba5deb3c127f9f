"""Model Context Protocol (MCP) over standard input and output: a model as tools of a desktop assistant."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple, Self

from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import RequestError, ThirteenError, as_line
from ..runtime.answer import Answer
from ..runtime.arithmetic.calculator import Step, check_steps
from ..runtime.engine.engine import Engine, RequestOptions
from ..runtime.engine.majority_vote import COMPLETE_REASONS, MajorityVote, vote_requests

QUESTION_CHARS_MAX = 1 << 15
TEXT_CHARS_MAX = 1 << 12  # as in /v1/check
VOTES_MAX = 8
_ERROR_CHARS_MAX = 600
_CLOSING_S = 1.0  # time to send the results of calls during which the engine failed
_READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SolveArguments(_Arguments):
    """Arguments of the tool `solve`."""

    question: Annotated[
        str, Field(min_length=1, max_length=QUESTION_CHARS_MAX, description="The word problem.")
    ]
    votes: Annotated[int, Field(ge=1, le=VOTES_MAX)] = Field(
        1, description="Answers to sample; the value that most of them give is taken."
    )


class CheckArguments(_Arguments):
    """Arguments of the tool `check_arithmetic`."""

    text: Annotated[
        str, Field(max_length=TEXT_CHARS_MAX, description="A text with equations, such as 12 * 13 = 156.")
    ]


class Solution(BaseModel):
    """Result of the tool `solve`; see Answer."""

    value: str | None
    verified: bool
    complete: bool
    steps: list[Step]
    text: str

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """The parts of an answer."""
        return cls(
            value=answer.value,
            verified=answer.verified,
            complete=answer.stop_reason in COMPLETE_REASONS,
            steps=list(answer.steps),
            text=answer.text,
        )


class CheckedText(BaseModel):
    """Result of the tool `check_arithmetic`."""

    steps: list[Step]


class _ToolEntry(NamedTuple):
    description: str
    arguments: type[BaseModel]
    result: type[BaseModel]
    run: Callable[[Any], Awaitable[BaseModel]]


@dataclass(frozen=True)
class AssistantTools:
    """The tools of a server, which one engine runs.

    Attributes:
        engine: answers questions; it must outlive the server.
        options: options of every question.
    """

    engine: Engine
    options: RequestOptions

    @property
    def _entries(self) -> dict[str, _ToolEntry]:
        return {
            "solve": _ToolEntry(
                "Solve a word problem. Gives the final value, the reasoning, each equation in it with "
                "whether it holds, whether all of them hold and lead to the value, and whether the "
                "reasoning is complete: if it was cut off, the value may not be the final one.",
                SolveArguments,
                Solution,
                self.solve,
            ),
            "check_arithmetic": _ToolEntry(
                "Find the equations in a text and check each with exact arithmetic.",
                CheckArguments,
                CheckedText,
                self.check_arithmetic,
            ),
        }

    async def solve(self, arguments: SolveArguments) -> Solution:
        """Answer a question; a cancelled call ends its requests.

        Raises:
            RequestError: the question is empty or too long.
            BusyError: too many answers are running.
            ModelFileError: the computation failed.
        """
        ask = partial(self.engine.request, arguments.question, **self.options)
        request = await asyncio.to_thread(ask)
        if arguments.votes == 1:
            return Solution.of(await self.engine.submit(request))
        return Solution.of(
            await MajorityVote(self.engine.submit_all(vote_requests(request, arguments.votes)))
        )

    async def check_arithmetic(self, arguments: CheckArguments) -> CheckedText:
        """Check the equations of a text, without the model."""
        return CheckedText(steps=list(await asyncio.to_thread(check_steps, arguments.text)))

    async def list_tools(self, _: ServerRequestContext, __: PaginatedRequestParams | None) -> ListToolsResult:
        """Describe the tools."""
        tools = [
            Tool(
                name=name,
                description=entry.description,
                input_schema=entry.arguments.model_json_schema(),
                output_schema=entry.result.model_json_schema(),
                annotations=_READS,
            )
            for name, entry in self._entries.items()
        ]
        return ListToolsResult(tools=tools)

    async def call_tool(self, _: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
        """Run a tool; what the caller can correct is the result, marked as an error."""
        try:
            if params.name not in self._entries:
                raise RequestError(f"there is no tool {params.name!r}")
            entry = self._entries[params.name]
            result = await entry.run(entry.arguments.model_validate(params.arguments or {}))
        except ValidationError as error:
            return _error_result(_first_problem(error))
        except ThirteenError as error:
            return _error_result(str(error))
        fields = result.model_dump()
        return CallToolResult(content=[_text(json.dumps(fields))], structured_content=fields)


def serve_stdio(engine: Engine, options: RequestOptions) -> None:
    """Serve until standard input ends; meanwhile nothing but the protocol is on standard output.

    When the engine has failed, the process ends with status 1, for the client to start it again.

    Args:
        engine: answers questions.
        options: options of every question.
    """
    # The reader of the SDK keeps a process that is interrupted until its input ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tools = AssistantTools(engine, options)
    server = Server(
        "thirteen",
        version=version("thirteen"),
        on_list_tools=tools.list_tools,
        on_call_tool=tools.call_tool,
    )
    asyncio.run(_serve(server, engine))


async def _serve(server: Server, engine: Engine) -> None:
    async with stdio_server() as (received, sent):
        watching = asyncio.create_task(_end_if_failed(engine))
        await server.run(received, sent, server.create_initialization_options())
        watching.cancel()


async def _end_if_failed(engine: Engine) -> None:
    while not engine.closed:
        await asyncio.sleep(_CLOSING_S)
    await asyncio.sleep(_CLOSING_S)
    print("error: the engine has failed: the server ends", file=sys.stderr, flush=True)
    os._exit(1)  # an exception would wait for the reader of the SDK, and so for the end of the input


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'the arguments'}: {problem['msg']}"


def _error_result(message: str) -> CallToolResult:
    line = as_line(message)
    shown = line if len(line) <= _ERROR_CHARS_MAX else f"{line[:_ERROR_CHARS_MAX]}…"
    return CallToolResult(content=[_text(shown)], is_error=True)


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)
