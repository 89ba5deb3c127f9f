"""A page that runs a model in a visitor's own browser."""
