"""Report of all measurements, as HTML, Markdown and JSON."""
