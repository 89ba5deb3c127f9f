"""What an adapted model costs and what it keeps, measured beside its base."""
