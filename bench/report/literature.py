"""Published figures of the method next to those measured here."""

from pathlib import Path

from ...errors import DownloadError
from ...models.catalogue import catalogue
from ...models.claims import Claim, claims
from ..accuracy.accuracy import AccuracyReport
from ..accuracy.datasets import HUB_SETS
from ..memory.size import SizeReport
from ..speed.latency import LatencyReport
from .document import Link, TextTable


def literature_table(
    latency: LatencyReport | None, size: SizeReport | None, accuracy: AccuracyReport | None
) -> TextTable | None:
    """Table with a row per claim that something measured here compares with; None if nothing does.

    A measurement is compared with a claim only if both have the same base model (which the size report
    holds), the same side (base or adapted), and the same prompt and questions, those of the set on the hub.
    What else shapes an accuracy, the calculator and votes, is named beside it.
    """
    rows = tuple(
        (
            f"{claim.what}, {claim.base or 'any model'}",
            claim.text,
            measured,
            Link(claim.source.title, claim.source.url),
        )
        for claim in claims()
        if (measured := _measured(claim, latency, size, accuracy))
    )
    header = ("published", "figure", "measured here", "source")
    return TextTable("Published figures next to those measured here", header, rows) if rows else None


def _measured(
    claim: Claim,
    latency: LatencyReport | None,
    size: SizeReport | None,
    accuracy: AccuracyReport | None,
) -> str | None:
    if claim.kind == "latency":
        return _latency(latency) if latency else None
    if size is None or not is_file_of_base(size, claim.base):
        return None
    if claim.kind == "size":
        return f"{size.file_bytes / 1e6:.1f} MB, {size.bits_per_weight:.2f} bits per weight"
    return _accuracy(claim, accuracy, size) if accuracy else None


def is_file_of_base(size: SizeReport, name: str) -> bool:
    """Whether a file was made from a base of the catalogue, according to its provenance."""
    try:
        hub_id = catalogue().base(name).hub_id
    except DownloadError:  # claims can be about a model that is not in the catalogue
        return False
    names = {name, hub_id, hub_id.rpartition("/")[2]}
    return (size.base_id or "").partition("@")[0].lower() in {name.lower() for name in names}


def _latency(latency: LatencyReport) -> str:
    decode, first = latency.middle.decode.ratio, latency.middle.first_token.ratio
    name = Path(latency.adapted.path).name
    return f"adapted / base: decode {decode.text(3)}, first token {first.text(3)}, for {name}"


def _accuracy(claim: Claim, accuracy: AccuracyReport, size: SizeReport) -> str | None:
    """The accuracy for a claim; None for other questions, or if the size report is of another file."""
    model = accuracy.adapted if claim.side == "adapted" else accuracy.base
    same = (accuracy.terms.prompt, accuracy.adapted.sha256) == (claim.prompt, size.sha256)
    origin = f"{HUB_SETS[claim.data].hub_id}@"  # a local file can have the set's name
    if model is None or not same or not accuracy.source.startswith(origin):
        return None
    text = f"{model.scores.accuracy.text(1, 100)} % of {model.scores.questions} questions"
    return f"{text}, {accuracy.terms.description}"
