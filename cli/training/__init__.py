"""Commands that make an adapter."""
