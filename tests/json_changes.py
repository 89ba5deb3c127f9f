"""Changes of JSON files, for tests of what is read of them and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[Any], Any]


def change_json(path: Path, *changes: Change) -> None:
    """Change the content of a file; a missing one has an empty object."""
    content = json.loads(path.read_text()) if path.exists() else {}
    for change in changes:
        change(content)
    path.write_text(json.dumps(content))


def put(*keys: Any, value: Any) -> Change:
    """A change that sets the value at a path of keys."""

    def change(content: Any) -> None:
        *path, last = keys
        for key in path:
            content = content[key]
        content[last] = value

    return change


def drop(*keys: str) -> Change:
    """A change that deletes the values of keys."""
    return lambda content: [content.pop(key) for key in keys]


def add_token(content: str, i: int, **options: Any) -> Change:
    """A change that adds a special token to tokenizer.json."""
    return lambda tokenizer: tokenizer["added_tokens"].append(
        {"content": content, "id": i, "special": True} | options
    )
