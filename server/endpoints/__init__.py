"""Endpoints of the HTTP server: a class for each API, whose methods respond to requests."""
