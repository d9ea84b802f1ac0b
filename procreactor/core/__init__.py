"""Floor 1: the C functions, one Python function each; no policy."""
