"""Processes of ours, and models of stock processes, that Lava runs.

::

    host_processes.py         sources of inputs, recorders of spikes, readers of potentials
    forgetful_connections.py  stock connection models that forget the spikes in flight between samples
    fast_models.py            which faster model runs which stock process: fast_lif.py, fast_connections.py
    fast_products.py          the current that spikes cause behind a matrix or a convolution
    fast_process.py           a model of one thread, whose channels (fast_ports.py) need no helper thread

Lava 0.10.0 executes every file here a second time under its bare name: so nothing here does anything when imported.
"""
