"""Evaluate a trained network on its test samples, as `fsnn evaluate` does."""

from fsnn_lava.cli import run_command

if __name__ == "__main__":
    run_command("evaluate")
