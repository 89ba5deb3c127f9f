"""Command `thirteen demo`: an answer, then the embedded base with and without shipped adapters, compared."""

import time
from statistics import fmean
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import options
from .answer_text import checks_text
from .application import command
from .console import end_wait, note, show, show_text, wait_for

_QUESTION = "Tom has 12 eggs and buys 6 more. How many eggs does he have?"
_ADAPTERS = (None, "smollm2-135m-sums-13", "smollm2-135m-sums-840")
_SUMS = 24  # one-step word problems that no adapter was trained on
_MAX_TOKENS = 64  # the base takes 71 on average, the adapters 22 and 16
_SLOTS = 8
_NEXT = """Try next:
  thirteen chat                  this small model, for one-step sums
  thirteen chat qwen2.5-1.5b     a capable model: a download of 3 GB, once
  thirteen models                all models, and those that fit here"""


@command("demo")
def demo(as_json: options.Json = False) -> None:
    """Ask the embedded model, and compare it with its base.

    Base, base with 13 trained numbers and base with 840 answer the same sums: right answers, seconds and
    bytes. It takes less than a minute on two cores.
    """
    from ..models.embedded import default_model
    from ..runtime.engine.engine import Engine

    wait_for("preparing the embedded model…")
    with Engine(default_model()) as engine:
        answer = engine.answer(_QUESTION)
    if not as_json:
        show_text(f"{_QUESTION}\n{answer.text}\n")
        note(f"({checks_text(answer)})\n")
    models = [_measure(adapter) for adapter in _ADAPTERS]
    end_wait()
    facts = {"question": _QUESTION, "answer": answer.text, "value": answer.value, "sums": _SUMS}
    show(as_json, facts | {"models": models}, _report(models))


def _measure(adapter: str | None) -> dict[str, Any]:
    from ..convert.adapter.adapter import load_adapter
    from ..models.catalogue import adapter_folder
    from ..models.embedded import default_model
    from ..models.passages import HELD_OUT_SUMS
    from ..models.rows import read_rows, same_answer
    from ..runtime.engine.engine import Engine

    file = default_model(adapter)
    numbers = load_adapter(adapter_folder(adapter)).trained_parameters if adapter else 0
    rows = read_rows(HELD_OUT_SUMS, ("answer",))[:_SUMS]
    wait_for(f"{_SUMS} sums with {adapter or 'the base'}…")
    with Engine(file, context=512, slots=_SLOTS) as engine:
        engine.check_answers()
        begun = time.perf_counter()
        answers = engine.answers([row.question for row in rows], max_tokens=_MAX_TOKENS)
        seconds = time.perf_counter() - begun
    return {
        "adapter": adapter,
        "numbers": numbers,
        "adapter_bytes": 2 * numbers,
        "right": sum(map(same_answer, answers, rows)),
        "seconds": seconds,
        "tokens": fmean(answer.usage.completion_tokens for answer in answers),
        "file": file,
        "file_bytes": file.stat().st_size,
    }


def _report(models: list[dict[str, Any]]) -> Group:
    base, *_, best = models
    table = Table("", "right", "seconds", "tokens an answer", "adapter", "file", box=None, pad_edge=False)
    for model in models:
        table.add_row(
            f"base + {model['numbers']} numbers" if model["adapter"] else "base",
            f"{model['right']} of {_SUMS}",
            f"{model['seconds']:.1f}",
            f"{model['tokens']:.0f}",
            f"{model['adapter_bytes']:,} bytes" if model["adapter"] else "",
            f"{model['file_bytes'] / 1e6:.0f} MB",
        )
    files = "\n".join(f"  {model['file']}" for model in models)
    return Group(
        f"With {best['adapter_bytes']:,} trained bytes the model has {best['right']} of {_SUMS} sums right "
        f"instead of {base['right']}, {base['seconds'] / best['seconds']:.1f} times as fast:\n",
        table,
        "\nThe files, for `thirteen ask FILE` and every other program that reads GGUF:",
        Text(files),  # Text: a path may look like rich markup
        f"\n{_NEXT}",
    )
