"""Reports on the numbers of a run, in text and plots."""
