"""The commands `thirteen bench …`, by what they measure."""
