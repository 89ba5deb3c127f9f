"""The formats of the HTTP API: request bodies, response shapes, and the OpenAPI document made of them."""
