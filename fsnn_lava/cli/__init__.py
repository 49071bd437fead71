"""Package cli: see layout.md."""
