"""Several networks in one run of Lava, whose start takes longer than the run of a small network."""

from collections.abc import Sequence

from fsnn_lava.backends.finished_samples import FinishedSamples
from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.hardware import Array, HardwareNetwork, RunResult


def run_side_by_side(
    runner: LavaRunner, networks: Sequence[HardwareNetwork], inputs: Sequence[Array]
) -> list[RunResult]:
    """One result per network, all spikes recorded; an `IncompleteRunError` holds the list of them."""
    finished = []
    for network, codes in zip(networks, inputs, strict=True):
        names = [p.name for p in network.populations]
        samples = runner._check(network, codes, names)
        finished.append(FinishedSamples(runner.name, network, samples=samples, record=names))
    runner._stream(tuple(inputs), tuple(finished), progress=None)
    return [samples.result() for samples in finished]
