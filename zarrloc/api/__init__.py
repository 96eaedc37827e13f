"""The Python face: commands as functions with keywords, the opened store, estimators."""
