"""How an engine runs a file: decided before anything is loaded."""
