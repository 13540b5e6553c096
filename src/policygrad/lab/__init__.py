"""The laboratory: exact worlds, and what they say about estimators."""
