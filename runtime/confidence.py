"""Confidence in a single answer, calibrated for each shipped model by the probabilities of its tokens.

A logistic regression of right values; docs/figures.md has the figures. Other models have
none: what a probability is worth differs from one to the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coefficients of the log-odds that the value of a greedy answer is right.

    Attributes:
        intercept: of any answer.
        mean: for each nat of the mean log-probability of the sampled tokens.
        total: for each nat of their sum.
        verified: added if the answer is verified.
    """

    intercept: float
    mean: float
    total: float
    verified: float

    def confidence(self, log_likelihood: float, tokens: int, *, verified: bool) -> float:
        """Probability that the value is right, by the log-likelihood and the number of the sampled tokens."""
        by_tokens = self.total * log_likelihood + self.mean * log_likelihood / max(tokens, 1)
        log_odds = self.intercept + by_tokens + self.verified * verified
        return 1 / (1 + exp(min(-log_odds, _LOG_ODDS_MAX)))


_LOG_ODDS_MAX = 100.0  # beyond some hundred, exp() overflows
_EMBEDDED = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SUMS_840 = "8616f9d00b1cfbc4ee65cd0259eebfdca939d558fe2f73b3dac654f1b7995c13"
# By the base's hash in a conversion or the file's name, type of the weights, and hash of a merged adapter.
_SHIPPED = {
    (_EMBEDDED, 7, _SUMS_840): Calibration(-0.28, 5.24, 0.193, 1.72),
    ("Qwen2.5 Coder 0.5B Instruct AWQ", 15, ""): Calibration(3.09, 5.95, 0.126, 0.33),
}


def find_calibration(metadata: Mapping[str, object]) -> Calibration | None:
    """The calibration of a GGUF by its metadata; None for a model that is not shipped."""
    base = metadata.get("thirteen.base.sha256", metadata.get("general.name"))
    adapter, weights = metadata.get("thirteen.adapter.sha256", ""), metadata.get("general.file_type")
    return next((found for key, found in _SHIPPED.items() if key == (base, weights, adapter)), None)
