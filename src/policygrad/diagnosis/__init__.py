"""The doctor: what is wrong with an environment, or with a run that does not learn."""
