"""Where models come from: the catalogue, downloads, training, and the adapters that ship."""
