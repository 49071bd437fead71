"""Run an exported network on test samples, as `fsnn run` does."""

from fsnn_lava.cli import run_command

if __name__ == "__main__":
    run_command("run")
