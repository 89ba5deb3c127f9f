"""Options of conversions, which several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from ..help_sections import advanced_option

Size = Annotated[
    str | None,
    typer.Option(help="Maximum file size: 600MB, 572MiB or 3.9bpw. Plans the type of each tensor."),
]
Prompt = Annotated[
    Path | None,
    typer.Option(
        help="Write a prompt into the chat template: of an adapter folder from learn, or a JSON file."
    ),
]
Importance = Annotated[
    Path | None,
    typer.Option(
        help="Importance file. Default where it is needed, and with --calibration or --effort: measured "
        "once, then cached."
    ),
]
Calibration = Annotated[
    Path | None,
    advanced_option(help="Texts to measure importance on: JSON lines with text, or question and answer."),
]
_THOROUGHNESS = (
    "Calibration text that the importance is measured on: quick (3,072 tokens), normal (6,144, the default) "
    "or thorough (18,432)"
)
Thoroughness = Annotated[str, typer.Option("--effort", help=f"{_THOROUGHNESS}.")]
ConversionThoroughness = Annotated[
    str | None,
    typer.Option(
        "--effort",
        help=f"{_THOROUGHNESS}, which also searches the scales of all blocks: a better file, slower.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="Processors to plan for: x86, x86-avx512, arm, any (of these) or wasm (a browser). Default: "
        "this one, whose costs are measured on first use, in one to two minutes."
    ),
]
Prefer = Annotated[str | None, advanced_option(help="quality or speed. Default: between the two.")]
Costs = Annotated[Path | None, advanced_option(help="Costs of types, measured by bench types.")]
Vocabulary = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE|auto",
        help="Keep only so many tokens, chosen and cached, or those of a list; see `thirteen vocabulary`. "
        "auto: as many as lose the least at --size.",
    ),
]
VocabularyTexts = Annotated[
    Path | None,
    advanced_option(help="Texts of your own to choose the tokens on, besides the built-in ones: JSON lines."),
]
