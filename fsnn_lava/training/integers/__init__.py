"""Training in integers: the network whose spikes are those of its integers, their rounding, and how it begins."""
