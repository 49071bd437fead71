"""The network as a graph of Lava processes. Runs in a Python process of its own, started by `lava_runner`.

::

    job.py          what is to be run (plain data)
    host.py         processes on the host: the source of the inputs, the recorders of spikes
    connections.py  stock connection models that forget the spikes in flight between samples
    soft_reset.py   SoftResetLIF: one neuron process that says what the stock graph computes
    build.py        HardwareNetwork -> graph; the clock is explained there
    worker.py       builds the graph, runs it, watches it, sends the spikes back

Lava imports every file beside a Process again under its bare name: so there is nothing but Lava code here, imports
are absolute, and importing a file does nothing.
"""
