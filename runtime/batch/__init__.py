"""Files of questions answered in batches whose results are reproducible."""
