"""The native libraries behind one interface: models, contexts, samplers, grammars, threads."""
