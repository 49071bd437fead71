"""The network as a graph of Lava processes. Runs in a Python process of its own, started by `lava_runner`.

::

    job.py          what is to be run (plain data)
    layout.py       the order of neurons on Lava
    ring.py         the shared memory through which samples stream
    host.py         processes on the host: sources of inputs, recorders of spikes, readers of potentials
    connections.py  stock connection models that forget the spikes in flight between samples
    fast_*.py       faster models of the stock processes, listed in fast_models.py; how they wait, in fast_process.py
    soft_reset.py   SoftResetLIF: one neuron process that says what the stock graph computes
    processes.py    the stock processes that say a population, a connection, a delay, a readout
    build.py        HardwareNetwork -> graph; the clock is explained there
    worker.py       builds the graph and runs it
    watched.py      what such a program does besides: receives, watches, reports, leaves
    netx.py         netx files, loaded with lava-dl; stands alone

Lava imports every file beside a Process again under its bare name: so there is nothing but Lava code here, imports
are absolute, and importing a file does nothing.
"""
