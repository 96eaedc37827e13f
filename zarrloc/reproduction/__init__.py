"""A paper's tables as files: planned as stages, run, and set beside the paper's figures."""
