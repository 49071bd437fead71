"""Package models: see layout.md."""
