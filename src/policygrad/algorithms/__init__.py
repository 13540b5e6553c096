"""One iteration (learner.py) and the named algorithms (recipes.py)."""
