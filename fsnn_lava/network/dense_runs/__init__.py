"""Ways to run T steps of a network by products of whole batches, which cost the same whatever the spikes."""
