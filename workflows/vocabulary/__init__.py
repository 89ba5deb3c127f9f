"""A smaller vocabulary: which tokens, and how many."""
