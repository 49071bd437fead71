"""SPIDE as a graph of Lava processes, which learn: a simulation of training on the chip (see docs/training-on-chip.md).

Nothing here computes a gradient for anybody else. A population knows its potentials, counts and masks; a connection
holds its weights once, sends spikes along them and couples' spikes back against them, and changes them by what
arrived at it. The law is that of Xiao et al., "SPIDE: a purely spike-based method for training feedback spiking neural
networks", Neural Networks 161 (2023), in the hardware's timing, where every connection takes one step.

::

    runner.py      `train_on_lava`: starts the worker and collects what is learnt
    job.py         what is to be trained, and what comes back (plain data)
    clock.py       the steps of a sample: when each population's two windows open
    memory.py      the shared memory through which weights and recorded spikes leave Lava
    plasticity.py  traces, the local product and momentum SGD: what a connection does to its own weights
    neurons.py     the source of samples, and populations of neurons with a ternary couple each
    synapses.py    connections that learn, and the readout, which also injects the error
    graph.py       job -> connected processes

It runs in a Python process of its own, `worker`, without torch, by the machinery of `fsnn_lava.backends.lava`.
"""
