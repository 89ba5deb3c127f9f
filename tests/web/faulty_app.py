"""A site whose server fails where a test wants it."""

from collections.abc import Callable
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from thirteen.web.static_server import isolated_app


class FaultyApp:
    """A site with injected faults: `faults` maps the end of a path to the response sent instead."""

    def __init__(self, folder: Path) -> None:
        self._app, self.faults = isolated_app(folder), dict[str, Callable[[], Response]]()
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        self.paths.append(path)
        fault = next((fault for end, fault in self.faults.items() if path.endswith(end)), None)
        await (fault() if fault else self._app)(scope, receive, send)
