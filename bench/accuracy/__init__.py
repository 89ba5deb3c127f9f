"""Right answers of a model and its base: question sets, prompts, the evaluation, its log and metrics."""
