"""Fixture: texts of grammars on the tiny model's vocabulary."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from thirteen.runtime.llama.model import Model

from .texts import GrammarTexts


@pytest.fixture(scope="package")
def texts(tiny: Path) -> Iterator[GrammarTexts]:
    with Model(tiny) as model:
        yield GrammarTexts(model)
