"""What was published for the method, beside what was measured here; what was not says so."""

from pathlib import Path

from ...errors import DownloadError
from ...models.catalogue import catalogue
from ...models.claims import Claim, claims
from ..accuracy.accuracy import AccuracyReport
from ..size.size import SizeReport
from ..speed.latency import LatencyReport
from .document import Cell, Link, Table

NOT_MEASURED = "not measured here"


def literature_table(
    latency: LatencyReport | None, size: SizeReport | None, answers: AccuracyReport | None
) -> Table:
    """A row for each claim.

    What was measured stands beside a claim only if it is of the same base, which the size report knows, and
    of the same side, questions and prompt.
    """
    rows = tuple(_row(claim, latency, size, answers) for claim in claims())
    header = ("published", "figure", "measured here", "source")
    return Table("Published figures beside those measured here", header, rows, of_text=True)


def _row(
    claim: Claim, latency: LatencyReport | None, size: SizeReport | None, answers: AccuracyReport | None
) -> tuple[Cell, ...]:
    measured = _measured(claim, latency, size, answers) or NOT_MEASURED
    source = Link(claim.source.title, claim.source.url)
    return f"{claim.what}, {claim.base or 'any model'}", claim.text, measured, source


def _measured(
    claim: Claim, latency: LatencyReport | None, size: SizeReport | None, answers: AccuracyReport | None
) -> str | None:
    if claim.kind == "latency":
        return _latency(latency) if latency else None
    if size is None or not is_base(size, claim.base):
        return None
    if claim.kind == "size":
        return _size(size)
    return _accuracy(claim, answers, size) if answers else None


def is_base(size: SizeReport, name: str) -> bool:
    """Whether a file was made of that base of the catalogue, as far as its provenance tells."""
    try:
        hub_id = catalogue().base(name).hub_id
    except DownloadError:  # a claim can be of a model that is not there
        return False
    names = {name, hub_id, hub_id.rpartition("/")[2]}
    return (size.base_id or "").partition("@")[0].lower() in {one.lower() for one in names}


def _latency(latency: LatencyReport) -> str:
    decode, first = latency.decode.ratio, latency.first_token.ratio
    name = Path(latency.adapted.path).name
    return f"adapted / base: decode {decode.text(3)}, first token {first.text(3)}, for {name}"


def _size(size: SizeReport) -> str:
    return f"{size.file_bytes / 1e6:.1f} MB, {size.bits_per_weight:.2f} bits a weight"


def _accuracy(claim: Claim, answers: AccuracyReport, size: SizeReport) -> str | None:
    """None where that claim's questions were not asked, or not of the file whose base is known."""
    side = answers.adapted if claim.side == "adapted" else answers.base
    asked = (answers.data, answers.terms.prompt) == (claim.data, claim.prompt)
    if side is None or not asked or answers.adapted.sha256 != size.sha256:
        return None
    return f"{side.scores.accuracy.text(1, 100)} % of {side.scores.questions} questions"
