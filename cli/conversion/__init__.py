"""The commands `convert`, `merge`, `plan`, `importance` and `vocabulary`."""
