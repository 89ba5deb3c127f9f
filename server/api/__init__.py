"""Formats of the HTTP API: request bodies, responses and the OpenAPI document."""
