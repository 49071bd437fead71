"""Trained networks in integers: accuracy, deviation, and speed on Lava and in the simulator."""
