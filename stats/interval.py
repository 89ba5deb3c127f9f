"""An estimate with its confidence interval."""

from dataclasses import dataclass

CONFIDENCE = 0.95  # of intervals over texts, questions or rows


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds of its interval; the function that makes it states the confidence."""

    low: float
    estimate: float
    high: float

    @property
    def excludes_one(self) -> bool:
        """Whether a ratio differs from 1 at the interval's confidence."""
        return not self.low <= 1.0 <= self.high

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a fraction of the estimate."""
        return (self.high - self.low) / 2 / self.estimate

    def text(self, digits: int, scale: float = 1) -> str:
        """The estimate followed by the interval in brackets, both times `scale`."""
        low, estimate, high = (
            f"{scale * bound:.{digits}f}" for bound in (self.low, self.estimate, self.high)
        )
        return f"{estimate} ({low} to {high})"
