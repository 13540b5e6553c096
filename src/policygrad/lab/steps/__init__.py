"""Several update rules on the same batch: their steps, the gains, and the relations between the rules."""
