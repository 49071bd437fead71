"""Train by SPIDE with every epoch executed in Lava, as `fsnn train-on-lava` does."""

from fsnn_lava.cli import run_command

if __name__ == "__main__":
    run_command("train-on-lava")
