"""Report what stopping earlier costs, as `fsnn anytime` does."""

from fsnn_lava.cli import run_command

if __name__ == "__main__":
    run_command("anytime")
