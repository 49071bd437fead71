"""Everything that numba compiles: sums over events, one step of a neuron, whole samples."""
