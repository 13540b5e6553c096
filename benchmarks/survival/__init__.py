"""Campaigns against the package: what it does where files, environments or machines fail it."""
