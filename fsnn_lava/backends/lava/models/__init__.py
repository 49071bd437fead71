"""Processes of ours, and models of stock processes, that Lava runs.

::

    host_processes.py         sources of inputs, recorders of spikes, readers of potentials
    fast_models.py            which model runs which stock process: Lava's own, which forget the spikes in flight
                              between samples, or faster ones: fast_lif.py, fast_connections.py
    fast_products.py          the current that spikes cause behind a matrix or a convolution
    fast_process.py           a model of one thread, whose channels (fast_ports.py) need no helper thread

Lava 0.10.0 executes every file here a second time under its bare name: so nothing here does anything when imported.
"""
