"""Regular expressions of module names in an adapter's config, which anyone may have written: bounded in time.

Python tries one way of matching after the other. Without repeated groups, the ways can be counted before.
"""

import re
from collections import Counter
from collections.abc import Collection
from math import comb

from ...errors import FileError, shorten

PATTERNS_MAX = 1000
CACHED_MAX = 500  # Python compiles more of them again for each name, where a library does not keep them
_CHARACTERS_MAX = 1000  # of one
_WAYS_MAX = 1e9  # of all patterns with all names; a nanosecond to five each


def check_patterns(
    where: str, patterns: Collection[str], modules: Collection[str], most: int = PATTERNS_MAX
) -> None:
    """Check that all names can be matched with all patterns in seconds.

    Raises:
        FileError: there are too many patterns, or one is too complex. The message begins with `where`.
    """
    if len(patterns) > most:
        raise FileError(f"{where} has {len(patterns):,} patterns; at most {most:,} are matched")
    lengths = Counter(map(len, modules))
    total = 0.0
    for pattern in patterns:
        # A repeated group; or one with a flag, such as that which allows white space before a repeat.
        if re.search(r"\)[*+{]|\(\?(?!:)", pattern) or len(pattern) > _CHARACTERS_MAX:
            raise FileError(f"{where} {shorten(pattern)} is too complex")
        total += sum(names * _ways(pattern, length) for length, names in lengths.items())
        if total > _WAYS_MAX:
            raise FileError(f"{where} {shorten(pattern)} is too complex for {len(modules):,} modules")


def _ways(pattern: str, length: int) -> float:
    """The most ways to match a name of a length: how its characters are shared out, and the alternatives."""
    repeats = len(re.findall(r"[*+{?]", pattern)) + 2  # PEFT's own before and after it
    groups = pattern.count("(") + 1
    return comb(length + repeats, repeats) * ((pattern.count("|") + groups) / groups) ** groups
