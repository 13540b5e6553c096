"""Training: the agent, the loop around it, callbacks, evaluation, many seeds, videos."""
