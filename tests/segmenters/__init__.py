"""Tests of the segmenters."""
