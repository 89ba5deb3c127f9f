"""JSON files from strangers, read within bounds."""

import json
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ThirteenError

MAX_BYTES = 100_000_000  # the largest published tokenizer.json is a third of it


def read_json(path: Path, error: type[ThirteenError] = CheckpointError) -> dict[str, Any]:
    """The JSON object in the file at `path`; whatever is wrong with it is raised as `error`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise error(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        value = json.loads(path.read_text("utf-8"))
    except OSError as failure:
        raise error(f"{path}: {failure.strerror or failure}") from None
    except (ValueError, RecursionError) as failure:
        raise error(f"{path}: not JSON: {failure}") from None
    if not isinstance(value, dict):
        raise error(f"{path}: not a JSON object")
    return value
