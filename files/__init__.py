"""File formats and file handling that every package shares."""
