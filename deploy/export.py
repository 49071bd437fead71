"""Export a trained network, or a NIR graph, as `fsnn export` does."""

from fsnn_lava.cli import run_command

if __name__ == "__main__":
    run_command("export")
