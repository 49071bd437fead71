"""Ways to find the gradient of a feedback spiking network, one module each."""
