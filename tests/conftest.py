"""Fixtures that several packages' tests share, the markers, and the distribution over workers."""

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

    from . import checkpoints

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    variants = {
        "llama": (checkpoints.llama(), {}),
        "llama untied": (checkpoints.llama(tie_word_embeddings=False), {}),
        "llama long": (checkpoints.llama(rope_parameters=checkpoints.LLAMA3_ROPE), {}),
        "llama bf16 in shards": (checkpoints.llama(), {"dtype": torch.bfloat16, "shard": "60KB"}),
        "llama wide": (
            checkpoints.llama(hidden_size=256, intermediate_size=512, num_hidden_layers=1),
            {},
        ),
        "qwen2": (checkpoints.qwen2(), {}),
        "qwen2 f16 tied": (checkpoints.qwen2(tie_word_embeddings=True), {"dtype": torch.float16}),
    }

    @cache
    def folder(name: str) -> Path:
        config, options = variants[name]
        return checkpoints.save_model(
            tmp_path_factory.mktemp("bases") / name.replace(" ", "-"), config, **options
        )

    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need torch, and keep each module's tests on one worker.

    Module-scoped fixtures are then made once. Tests of Ray share a group of their own, since two clusters on
    one machine would take each other's processors.
    """
    for item in items:
        module = getattr(item, "module", None)
        if "base" in getattr(item, "fixturenames", ()) or "torch" in vars(module):
            item.add_marker("torch")
        group = "ray" if item.get_closest_marker("ray") else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


def _skipped_browser_tests(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    return sum("browser" in report.keywords for report in skipped)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line that browser tests did not run."""
    if skipped := _skipped_browser_tests(config):
        reason = "is Chromium installed (apt-get install chromium), and npm's registry reachable?"
        terminalreporter.write_line(f"{skipped} browser tests did not run: {reason}", yellow=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail where REQUIRE_BROWSER is set and browser tests were skipped."""
    if os.environ.get("REQUIRE_BROWSER") and not exitstatus and _skipped_browser_tests(session.config):
        session.exitstatus = exitstatus = pytest.ExitCode.TESTS_FAILED
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Skip the interpreter's shutdown where Ray was loaded.

    Ray's native threads outlive it, and one run in two ended in a segmentation fault after all tests passed.
    """
    if "ray" in sys.modules and _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
