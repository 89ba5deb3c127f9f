"""What several rooms' tests share: small checkpoints, made once a session."""

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

_STATUS = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random checkpoint by its name, one of those below."""
    import torch
    from transformers.utils import logging

    from . import checkpoints as made

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    variants = {
        "llama": (made.llama(), {}),
        "llama untied": (made.llama(tie_word_embeddings=False), {}),
        "llama long": (made.llama(rope_parameters=made.LLAMA3_ROPE), {}),
        "llama bf16 in shards": (made.llama(), {"dtype": torch.bfloat16, "shard": "60KB"}),
        "llama wide": (made.llama(hidden_size=256, intermediate_size=512, num_hidden_layers=1), {}),
        "qwen2": (made.qwen2(), {}),
        "qwen2 f16 tied": (made.qwen2(tie_word_embeddings=True), {"dtype": torch.float16}),
    }

    @cache
    def folder(name: str) -> Path:
        config, how = variants[name]
        return made.save_model(tmp_path_factory.mktemp("bases") / name.replace(" ", "-"), config, **how)

    return folder


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End without the interpreter's last steps where Ray was loaded.

    Its native threads outlive them, and one run of two ended in a segmentation fault after all had passed.
    """
    if "ray" in sys.modules and _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
