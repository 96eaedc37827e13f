"""Heads, nearest neighbours, splits, metrics and baselines: arrays in, scores out."""
