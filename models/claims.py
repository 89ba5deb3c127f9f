"""Published figures for this method and these models, each with its source."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

_FILE = Path(__file__).parent / "claims.toml"

ClaimKind = Literal["accuracy", "size", "latency"]
Side = Literal["base", "adapted"]


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """The publication of a figure."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One published figure.

    Attributes:
        what: short description.
        kind: quantity that the figure measures.
        side: whether the figure is of the unadapted model or the adapted one.
        figure: fraction of 1 for an accuracy, bytes for a size; a word where no number was published.
        source: publication.
        base: base model, by its catalogue name if it has one; empty for any base.
        data: question set of an accuracy.
        prompt: prompt format of an accuracy.
    """

    what: str
    kind: ClaimKind
    side: Side
    figure: float | str
    source: ClaimSource
    base: str = ""
    data: str = ""
    prompt: str = ""

    @property
    def text(self) -> str:
        """The figure with its unit."""
        if isinstance(self.figure, str):
            return self.figure
        return f"{100 * self.figure:.1f} %" if self.kind == "accuracy" else f"{self.figure / 1e6:.0f} MB"


@cache
def claims() -> tuple[Claim, ...]:
    """Read `claims.toml`; the result is cached."""
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    sources = {name: ClaimSource(**entry) for name, entry in table["sources"].items()}
    return tuple(Claim(**entry | {"source": sources[entry["source"]]}) for entry in table["claims"])
