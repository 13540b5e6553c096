"""Claims: estimates."""
