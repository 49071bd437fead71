"""Train a feedback spiking network, as `fsnn train` does."""

from fsnn_lava.cli import run_command

if __name__ == "__main__":
    run_command("train")
