"""Environments: construction, the Collector, probe environments."""
