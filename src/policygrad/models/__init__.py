"""Networks, heads (distributions), policies and critics, on flat parameters."""
