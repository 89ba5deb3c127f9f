"""Generated English texts: word problems with worked solutions, and everyday sentences."""
