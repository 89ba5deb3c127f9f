"""Keywords of an engine whose logits are the same on all machines."""

from typing import Any

FIXED: dict[str, Any] = {"threads": 1, "flash_attention": True, "kv": "f16"}
