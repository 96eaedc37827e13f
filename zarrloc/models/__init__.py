"""Backbones: which there are, their weights, what goes into them and what comes out."""
