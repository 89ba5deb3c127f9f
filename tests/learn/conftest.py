"""A tiny Llama, loaded and with other chat templates, for the tests of training."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thirteen.learn.base_model import Tokenizer, load_base_model, open_tokenizer

from ..json_changes import change_json


@pytest.fixture(scope="module")
def loaded(base: Callable[[str], Path]) -> Iterator[tuple[Any, Tokenizer]]:
    """The transformers model, and the runtime's tokenizer."""
    with open_tokenizer(base("llama")) as tokenizer:
        yield load_base_model(base("llama")), tokenizer


@pytest.fixture(scope="module")
def templated(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """templated(text): a copy of the base whose chat template begins with the text."""

    def copy(text: str) -> Path:
        folder = shutil.copytree(base("llama"), tmp_path_factory.mktemp("templated") / "base")
        change_json(
            folder / "tokenizer_config.json", lambda c: c.update(chat_template=text + c["chat_template"])
        )
        return folder

    return copy
