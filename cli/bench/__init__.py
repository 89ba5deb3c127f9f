"""Commands `thirteen bench …`: one module per quantity measured."""
