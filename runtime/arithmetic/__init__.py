"""Exact arithmetic in prose: final answers, pending results and checks of written equations."""
