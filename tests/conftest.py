"""Shared fixtures, markers, and the distribution of tests over workers."""

import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import pytest
from hypothesis import settings

from .commands import Commands

EXHAUSTIVE, QUICK = (bool(os.environ.get(name)) for name in ("EXHAUSTIVE", "QUICK"))
# They need what `make test` does not install.
collect_ignore = [] if EXHAUSTIVE else ["cluster", "server/clients"]

# Examples of each property. A loaded machine is no failure, hence no deadline.
_EXAMPLES = 100 if EXHAUSTIVE else 5 if QUICK else 20
settings.register_profile("examples", deadline=None, max_examples=_EXAMPLES)
settings.load_profile("examples")

# Two workers share two cores. Threads that spin while they wait would take the other worker's core: a model
# with two threads then computes ten times slower. Set before llama.cpp, torch and numpy are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["THIRTEEN_UNTRUSTED"] = "never"  # a trial load of each tiny file would take most of the time
os.environ["THIRTEEN_LIBRARY"] = "llama.cpp"  # another one rounds otherwise, and is not everywhere

# A shell starts a background job, such as `make test &`, with Ctrl-C ignored, which commands would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

_IMPORTS_TORCH = re.compile(
    r"^(import|from) (torch|peft|transformers|\S*(peft_adapters|checkpoints|embedders))\b", re.MULTILINE
)
_STATUS = pytest.StashKey[int]()
_CACHE = pytest.StashKey[ExitStack]()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out modules that import torch from `make quick`, which then need not load it: 5 s a worker."""
    if QUICK and collection_path.suffix == ".py":
        return bool(_IMPORTS_TORCH.search(collection_path.read_text(encoding="utf-8"))) or None
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Give this process an empty cache folder, so that no result depends on earlier runs or other workers.

    `make arm` keeps what it downloads and compiles in the user's.
    """
    if config.option.markexpr != "arm":
        config.stash[_CACHE] = ExitStack()
        config.stash[_CACHE].enter_context(_empty_cache())


@contextmanager
def _empty_cache() -> Iterator[None]:
    """Only the archives of npm packages are taken over, and kept: those are accepted by their hash alone."""
    from thirteen.errors import OutputError
    from thirteen.files.cache_folder import cache_dir, temporary_folder

    kept = Path(os.devnull)  # where the home folder is read-only
    with suppress(OutputError):
        kept = cache_dir()  # in a worker, the folder of the process that starts the workers
    with temporary_folder("thirteen-tests", Path(gettempdir())) as own:
        os.environ["THIRTEEN_CACHE"] = str(own)
        _copy_archives(kept, own)
        yield
        with suppress(OutputError):
            _copy_archives(own, kept)


def _copy_archives(source: Path, target: Path) -> None:
    from thirteen.files.output import atomic_write

    for archive in source.glob("*.tgz"):
        if not (target / archive.name).exists():
            with atomic_write(target / archive.name) as file:
                file.write(archive.read_bytes())


@pytest.fixture(scope="module")
def thirteen() -> Iterator[Commands]:
    """thirteen(*words): run a command line."""
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 0.3 MB with a byte-level vocabulary."""
    from .runtime.conftest import write_gguf

    return write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", {}, {})


@pytest.fixture(scope="session")
def my_lora(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT folder with a random LoRA for the checkpoint `llama`."""
    from peft import LoraConfig

    from .convert.peft_adapters import save_random_adapter

    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
    return save_random_adapter(base("llama"), config, tmp_path_factory.mktemp("adapters") / "my-lora")


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Trial loads as users have them, with an empty cache; the path of the folder of records in it."""
    from thirteen.files import trusted_files

    monkeypatch.delenv("THIRTEEN_UNTRUSTED")
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trusted_files, "_recorded_here", set())
    return tmp_path / "cache/trusted"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """base(name): folder of a small random checkpoint, made at the first call."""
    import torch
    from transformers.utils import logging

    from . import checkpoints

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    configs = {name: make() for name, make in checkpoints.FAMILIES.items()} | {
        "llama untied": checkpoints.llama(tie_word_embeddings=False),
        "llama long": checkpoints.llama(rope_parameters=checkpoints.LLAMA3_ROPE),
        "llama bf16 in shards": checkpoints.llama(),
        "llama wide": checkpoints.llama(hidden_size=256, intermediate_size=512, num_hidden_layers=1),
        "qwen2 f16 tied": checkpoints.qwen2(tie_word_embeddings=True),
    }
    dtypes = {"llama bf16 in shards": torch.bfloat16, "qwen2 f16 tied": torch.float16}
    shards = {"llama bf16 in shards": "60KB"}

    @cache
    def folder(name: str) -> Path:
        return checkpoints.save_model(
            tmp_path_factory.mktemp("bases") / name.replace(" ", "-"),
            configs[name],
            dtype=dtypes.get(name, torch.float32),
            shard=shards.get(name, "1GB"),
        )

    return folder


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what other targets of `make` run, mark what needs torch, and distribute tests over workers.

    All tests of a module run on one worker, so that module-scoped fixtures are made once. All tests of Ray
    run on one worker, because two clusters on one machine would compete for its processors. The longest
    groups start first.
    """
    unless_named = [name for name in ("arm", "vulkan") if name not in config.option.markexpr]
    names = unless_named + ([] if EXHAUSTIVE else ["exhaustive", "browser"])
    left_out = [item for item in items if any(map(item.get_closest_marker, names))]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    for item in items:
        module = getattr(item, "module", None)
        if "base" in getattr(item, "fixturenames", ()) or "torch" in vars(module):
            item.add_marker("torch")
        group = "ray" if item.get_closest_marker("ray") else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    slow_modules = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.get_closest_marker("ray"), item.path not in slow_modules))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail if REQUIRE_BROWSER is set and a browser test is skipped."""
    report = yield
    if report.skipped and item.get_closest_marker("browser") and os.environ.get("REQUIRE_BROWSER"):
        report.outcome = "failed"
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the exit status for the end of the process."""
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache folder, and skip the interpreter's shutdown if Ray was imported.

    Ray's native threads outlive the interpreter: one run in two ended in a segmentation fault after all tests
    had passed.
    """
    if _CACHE in config.stash:
        config.stash[_CACHE].close()
    if "ray" in sys.modules and _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
