"""A loaded tiny Llama, and the command line, for the tests of training."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thirteen.models.training.base_model import load_base_model

from ...commands import Commands


@pytest.fixture(scope="module")
def loaded(base: Callable[[str], Path]) -> tuple[Any, Any]:
    """The transformers model and its tokenizer."""
    return load_base_model(base("llama"))


@pytest.fixture(scope="module")
def thirteen() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands
