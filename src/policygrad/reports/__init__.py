"""Reports: what the numbers of a run say, in words and pictures."""
