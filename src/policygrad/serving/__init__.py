"""Serving: trained policies without environments, without torch where NumPy is enough, and in the formats of other runtimes."""
