"""Cost of a weight of each ggml type in a browser, measured by wllama in a headless Chromium.

It is measured as in type_costs.py, with smaller models, since the browser computes more slowly. The page runs
one question at a time, so that nothing is decoded in batches.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from thirteen.files.progress import Progress, no_progress
from thirteen.files.temporary_folder import temporary_folder
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import FloatArray
from thirteen.stats.paired_ratio import ROUNDS_MIN
from thirteen.web.wllama import VERSION
from thirteen.bench.harness.environment import report_head
from thirteen.bench.harness.schedule import ProgressCounter, alternating_order
from thirteen.bench.harness.workload import Workload
from thirteen.bench.synthetic.random_model import NOT_ASCII
from thirteen.bench.speed.browser_models import BrowserModels, browser_models
from thirteen.bench.speed.probe_models import ProbeShape, write_probe_models
from thirteen.bench.speed.type_costs import TYPES, TypesReport, measured_types, types_report

TARGET = "wasm"
ROUNDS = 24
DECODE_TOKENS = 12
PROMPT_TOKENS = 16
_SHAPE = ProbeShape(hidden=1024, ffn=4096, heads=16, kv_heads=4, layers=2, vocabulary=1 << 14)
_PROMPT = "x" * PROMPT_TOKENS  # letters are tokens of the models


def run_wasm_type_costs(
    *,
    types: Sequence[str] = TYPES,
    rounds: int = ROUNDS,
    shape: ProbeShape = _SHAPE,
    progress: Progress = no_progress,
) -> TypesReport:
    """Measure the cost of a weight of each type in a headless Chromium.

    The page chooses the number of threads, as on a visitor's device.

    Args:
        types: names of types; the reference Q4_K is always measured.
        rounds: number of rounds, at least 8; every other one has the reverse order.
        shape: shape of the models.
        progress: called with steps done and in all: models loaded, and iterations.

    Raises:
        OutputError: a type is unknown, or the disk has no room for the models.
        RequestError: a number is out of range, Chromium is not installed, or it ended.
        ModelFileError: wllama cannot run one of the types.
        DownloadError: wllama cannot be downloaded.
    """
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    ggml_types = measured_types(types)
    advance = ProgressCounter(progress, (1 + 2 * len(ggml_types)) * (2 + rounds))
    head = report_head()
    with temporary_folder("types") as folder, browser_models(folder) as browser:
        models = _load(browser, shape, ggml_types, advance)
        _run_round(browser, models, 0, advance)  # warm-up: the browser compiles what runs often anew
        seconds = np.array([_run_round(browser, models, number, advance) for number in range(rounds)])
        workload = Workload(PROMPT_TOKENS, DECODE_TOKENS, browser.threads, PROMPT_TOKENS)
        engine = f"wllama {VERSION}, {browser.browser}"
    return types_report(head, workload, shape, ggml_types, seconds, TARGET, engine)


def _load(
    browser: BrowserModels,
    shape: ProbeShape,
    types: Sequence[GGMLQuantizationType],
    advance: ProgressCounter,
) -> list[Path]:
    models = []
    for path in write_probe_models(browser.folder, shape, types):
        browser.load(path)
        path.unlink()
        models.append(path)
        advance()
    return models


def _run_round(
    browser: BrowserModels, models: Sequence[Path], number: int, advance: ProgressCounter
) -> FloatArray:
    """Seconds per token of each model in prefill and decode, (models, 2)."""
    seconds = np.empty((len(models), 2))
    for index in alternating_order(len(models), number):
        times = browser.time(models[index], _PROMPT, DECODE_TOKENS, NOT_ASCII)
        seconds[index] = times.prefill_s / times.prompt_tokens, times.decode_s / times.decoded
        advance()
    return seconds
