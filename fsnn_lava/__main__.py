"""``python -m fsnn_lava``: the same as the command ``fsnn``."""

from fsnn_lava.cli import main

if __name__ == "__main__":  # not in the processes that torch and Lava start
    main()
