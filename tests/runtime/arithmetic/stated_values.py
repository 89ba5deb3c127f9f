"""Answers with the value that each states, None if it states none; see test_stated_values.py."""

import json
from pathlib import Path

_FILE = Path(__file__).parents[2] / "data" / "stated_values.jsonl"
STATED_VALUES = [json.loads(line) for line in _FILE.read_text("utf-8").splitlines()]
