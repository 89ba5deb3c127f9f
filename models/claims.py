"""What was published for this method and these models, each claim with its source."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

_FILE = Path(__file__).parent / "claims.toml"

Kind = Literal["accuracy", "size", "latency"]
Side = Literal["base", "adapted"]


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """Where something was published."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One published figure.

    Attributes:
        what: it is of, in a few words.
        kind: of figure.
        side: whether it is of the unadapted model or the adapted one.
        figure: a part of 1 for an accuracy, bytes for a size; a word where no number was given.
        source: where it stands.
        base: the base model, by its name in the catalogue where it is there; empty for any.
        data: the set of questions of an accuracy.
        prompt: how its questions were put.
    """

    what: str
    kind: Kind
    side: Side
    figure: float | str
    source: ClaimSource
    base: str = ""
    data: str = ""
    prompt: str = ""

    @property
    def text(self) -> str:
        """The figure as it is read."""
        if isinstance(self.figure, str):
            return self.figure
        return f"{100 * self.figure:.1f} %" if self.kind == "accuracy" else f"{self.figure / 1e6:.0f} MB"


@cache
def claims() -> tuple[Claim, ...]:
    """Read `claims.toml`, once."""
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    sources = {name: ClaimSource(**entry) for name, entry in table["sources"].items()}
    return tuple(Claim(**entry | {"source": sources[entry["source"]]}) for entry in table["claims"])
