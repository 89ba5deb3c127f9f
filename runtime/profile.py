"""How much a machine is asked for: memory, and requests at once."""

from dataclasses import dataclass

from gguf import GGMLQuantizationType as Type

from ..errors import RequestError

KV_TYPES = {"f16": Type.F16, "q8_0": Type.Q8_0}  # by the names that users have for them


@dataclass(frozen=True, slots=True)
class Profile:
    """What an engine sets aside.

    Attributes:
        context: the most tokens of a request, prompt and answer together.
        slots: how many requests run at once.
        batch: the most tokens computed in one step.
        kv: the type of keys and values, one of KV_TYPES; q8_0 takes about half the memory of f16.
        repack: whether weights are laid out anew for this processor: quicker, and a copy of them in memory.
        prefix_bytes: bytes of memory for beginnings of prompts, see prefix.py; 0 keeps none.
        lookup: the most tokens of a draft by prompt lookup, see lookup.py; 0 makes none.
    """

    context: int
    slots: int
    batch: int
    kv: str
    repack: bool
    prefix_bytes: int
    lookup: int = 0


PROFILES = {
    "laptop": Profile(context=2048, slots=4, batch=512, kv="f16", repack=True, prefix_bytes=256 << 20),
    "server": Profile(context=2048, slots=8, batch=512, kv="f16", repack=True, prefix_bytes=1 << 30),
    "phone": Profile(context=2048, slots=1, batch=64, kv="q8_0", repack=False, prefix_bytes=16 << 20),
}


def profile_named(name: str) -> Profile:
    """The profile of a name.

    Raises:
        RequestError: there is none.
    """
    if name not in PROFILES:
        raise RequestError(f"profile: {name!r} is not one of {', '.join(PROFILES)}")
    return PROFILES[name]
