"""Who may ask, and how much: API keys, limits, fair turns, and slow clients."""
