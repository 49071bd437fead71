"""The network as a graph of Lava processes, in a Python process of its own, which can be interrupted and ended.

::

    runner.py            backends lava-fixed, lava-float, loihi2: checks, starts the worker, collects results
    chip_limits.py       what Lava and Loihi 2 cannot express of a network
    sample_ring.py       a worker's job, and the memory through which samples stream; shared_arrays.py: such memory
    worker_process.py    the caller's end of a run: starts, listens to and ends the worker
    worker.py            the worker: builds a graph and runs it; worker_protocol.py: how it reports, and leaves
    build_graph.py       HardwareNetwork -> graph; the clock is explained there
    stock_processes.py   the stock processes of a population, a connection, a delay, a readout
    lava_format.py       how Lava wants neurons ordered, kernels and mantissas
    models/              processes and models of ours that Lava runs
    learning/            training as a graph of processes that learn

Lava 0.10.0 imports every file beside a process again under its bare name, and the files of the folders beside it. So
processes and their models are in folders with nothing else, whose files do nothing when imported, absolutely.
"""
