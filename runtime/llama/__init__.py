"""Models, contexts and samplers over the native libraries, and the checks before native calls."""
