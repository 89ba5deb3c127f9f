"""Static site that runs a model in the browser (wllama)."""
