"""Fidelity of a quantized file: its distance from full precision, and what it preserves of the adapter.

The same held-out texts go through all models, and predictions are compared at every position: those of the
shipped file with those of the reference, and the effect of the adapter on both.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError
from ...files.gguf.header import read_header
from ...files.progress import Progress, no_progress
from ...files.received_files import file_sha256
from ...models.passages import HELD_OUT
from ...runtime.engine.engine import Engine
from ...runtime.llama.settings import LLAMA
from ...stats import Doubles
from ..environment import ModelSource, describe_model, report_head
from ..rounds import ProgressCounter
from .comparison import (
    PositionDivergence,
    inner_products,
    logit_effect,
    position_divergence,
    summarize_divergence,
    summarize_effect,
)
from .fidelity_report import FidelityReport, describe_fidelity
from .text_logits import WINDOW_TOKENS, Window, WindowPrediction, read_windows
from .token_map import TokenMap, measure_coverage

# The adapted and the unadapted model in full precision, and both of them quantized alike.
Role = Literal["reference", "base", "shipped", "shipped_base"]
_OUTSIDE = PositionDivergence._fields.index("outside")
_DIVERGENCE = len(PositionDivergence._fields)  # numbers of a position's divergence
_NO_EFFECT = (0.0, 0.0, 0.0)


def run_fidelity(
    models: Mapping[Role, ModelSource],
    *,
    data: Path = HELD_OUT,
    tokens: int = 4096,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> FidelityReport:
    """Compare a shipped file with the model in full precision, over texts that it was not made from.

    With both bases the adapter's effect is measured. All models are loaded together. A position whose tokens
    repeat an earlier one's, as in the prefixes of chats, counts once; at most `tokens` are compared.

    Raises:
        FileError: a file is not a GGUF, cannot be run by this build, or has another vocabulary than the
            reference; or a model's logits are not finite; an adapter does not fit.
        RequestError: `data` holds no text.
    """
    assert ("base" in models) == ("shipped_base" in models), "an effect is a difference of two models"
    head, maps = report_head(), _token_maps(models)
    with ExitStack() as loaded:
        by_source = dict[ModelSource, Engine]()  # roles can share an engine
        for role, source in models.items():
            if source not in by_source:
                engine = _load(source, WINDOW_TOKENS * maps[role].expansion, threads)
                by_source[source] = loaded.enter_context(engine)
        engines = {role: by_source[source] for role, source in models.items()}
        # A text may be longer in a trimmed vocabulary.
        sizes = (engine.context // maps[role].expansion for role, engine in engines.items())
        windows = read_windows(engines["reference"], data, min(WINDOW_TOKENS, *sizes), tokens)
        advance = ProgressCounter(progress, len(by_source) * sum(len(window.tokens) for window in windows))
        # The numbers of _compare() at each position, (positions, 8).
        values = np.concatenate([_measure_window(engines, maps, window, advance) for window in windows])
    passages = np.array([window.passage for window in windows for _ in window.scored])  # (positions,)
    scored = [window.tokens[at + 1] for window in windows for at in window.scored]
    divergences, products = np.split(values, [_DIVERGENCE], axis=1)
    files = {role: describe_model(source) for role, source in models.items()}
    report = FidelityReport(
        *head,
        verdict=(),
        reference=files["reference"],
        shipped=files["shipped"],
        base=files.get("base"),
        shipped_base=files.get("shipped_base"),
        data=str(data),
        data_sha256=file_sha256(data),
        passages=len(np.unique(passages)),
        positions=len(passages),
        divergence=summarize_divergence(divergences, passages),
        effect=summarize_effect(products, passages),
        vocabulary=measure_coverage(maps["shipped"], scored, divergences[:, _OUTSIDE], passages),
    )
    return replace(report, verdict=tuple(describe_fidelity(report)))


def _load(source: ModelSource, context: int, threads: int | None) -> Engine:
    sizes = {"context": context, "threads": threads, "slots": 1, "batch": 64}
    return Engine(source.model, adapter=source.adapter, library=LLAMA, **sizes)


def _token_maps(models: Mapping[Role, ModelSource]) -> dict[Role, TokenMap]:
    """Compare the vocabularies: shipped files may keep a part of the reference's, the base has all of it."""
    headers = {role: read_header(source.model) for role, source in models.items()}
    maps = {role: TokenMap(headers["reference"], header) for role, header in headers.items()}
    pairs: tuple[tuple[Role, Role], ...] = (("reference", "base"), ("shipped", "shipped_base"))
    for role, other in pairs:
        if other in maps and not np.array_equal(maps[role].ids, maps[other].ids):
            raise FileError(f"{models[other].model}: has another vocabulary than {models[role].model}")
    return maps


def _measure_window(
    engines: Mapping[Role, Engine], maps: Mapping[Role, TokenMap], window: Window, advance: ProgressCounter
) -> Doubles:
    computed = dict[Engine, WindowPrediction]()
    for role, engine in engines.items():
        if engine not in computed:
            computed[engine] = WindowPrediction(engine, window, maps[role])
            advance(len(window.tokens))
    predictions = {role: computed[engine] for role, engine in engines.items()}
    ids = maps["shipped"].ids
    return np.array([_compare(predictions, ids, at, window.tokens[at + 1]) for at in window.scored])


def _compare(
    predictions: Mapping[Role, WindowPrediction], ids: NDArray[np.int64], at: int, next_token: int
) -> tuple[float, ...]:
    """PositionDivergence and inner_products(); the shipped files have the tokens `ids`."""
    reference, shipped = predictions["reference"], predictions["shipped"]
    expected = reference.log_probabilities(at)
    found, nll = shipped.log_probabilities(at), shipped.nll(at)
    divergence = position_divergence(expected, found, next_token, ids, nll)
    if "base" not in predictions:
        return *divergence, *_NO_EFFECT
    full = logit_effect(reference.logits(at)[ids], predictions["base"].logits(at)[ids])
    effect = logit_effect(shipped.logits(at), predictions["shipped_base"].logits(at))
    return *divergence, *inner_products(effect, full)
