"""Training by spikes in both phases: time, memory, operations, energy and error of the gradient."""
