"""Commands that make, check and share adapters."""
