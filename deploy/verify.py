"""Compare backends on the same test samples, as `fsnn verify` does."""

from fsnn_lava.cli import run_command

if __name__ == "__main__":
    run_command("verify")
