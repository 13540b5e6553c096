"""Claims: learning."""
