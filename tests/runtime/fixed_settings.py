"""Settings with which an engine measures nothing: its logits are then the same on all machines."""

from thirteen.runtime.plan.options import EngineOptions

FIXED: EngineOptions = {"threads": 1, "flash_attention": True, "kv": "f16"}
