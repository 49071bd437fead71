"""The bridge: a trained network as a float `HardwareNetwork`, and as a run to compare hardware with."""

import dataclasses

import numpy as np
import torch

from fsnn_lava.hardware import (
    Array,
    HardwareNetwork,
    RunResult,
    Timing,
    check_inputs,
    rates_from_spikes,
    read_out,
    with_timing,
)
from fsnn_lava.network import lower_model
from fsnn_lava.training import IntegerSNN, TrainedNetwork


def lower(trained: TrainedNetwork, *, timing: Timing = "hardware") -> HardwareNetwork:
    """Fold a trained network into a float one of weights, constant currents and delays, as hardware has them.

    One that was trained in integers becomes that of its integers, dequantized, which `quantize` turns into them again.

    >>> network = lower(trained)  # doctest: +SKIP

    Parameters
    ----------
    timing : the delays: ``hardware``: one step for every connection; ``sequential``: the papers'.

    Raises
    ------
    CheckpointError : if the weights do not fit the network.
    UnsupportedError : if a layer of a kind from outside is too large to be a matrix.
    """
    config, model = trained.config, trained.model()
    steps = config.network.time_steps
    if isinstance(model, IntegerSNN):
        network = dataclasses.replace(with_timing(model.dequantized(), timing), time_steps=steps)
    else:
        network = lower_model(model.double(), trained.coding, name=config.name, time_steps=steps, timing=timing)
    return dataclasses.replace(network, provenance={**trained.provenance(), **network.provenance})


@torch.no_grad()
def run_torch(
    trained: TrainedNetwork, network: HardwareNetwork, codes: Array, *, time_steps: int, timing: Timing | None = None
) -> RunResult:
    """Run the trained network itself in PyTorch, in float64, on the inputs that the hardware is given.

    One that was trained in integers runs in these.

    Parameters
    ----------
    network : its lowered form, against whose input the codes are checked.
    codes : (B, *shape) graded codes or (T, B, *shape) event frames.
    timing : when spikes come back: as in the papers, or as on hardware; None: as trained.

    Raises
    ------
    InputError : if the codes do not fit.
    """
    check_inputs(network, codes, record=())
    model = trained.model().double()
    x = torch.from_numpy(trained.coding.decode(codes.astype(np.uint8), np.float64))
    bound = model.bind(network.input.samples(codes))
    run = bound.simulate(
        bound.drive(x, time_steps=time_steps),
        time_steps=time_steps,
        loop_delays=None if timing is None else model.topology.loop_delays(timing),
        record=True,
    )
    assert run.spikes is not None
    names = model.population_names
    spikes = {n: s.numpy() for n, s in zip(names, run.spikes, strict=True)}
    rates = {n: rates_from_spikes(spikes[n], neuron.leak) for n, neuron in zip(names, model.neurons, strict=True)}
    return RunResult(
        backend="torch",
        network=network.name,
        arithmetic="integer" if isinstance(model, IntegerSNN) else "float",
        time_steps=time_steps,
        firing_rates=rates,
        spike_counts={n: s.sum(axis=0, dtype=np.int32) for n, s in spikes.items()},
        logits=read_out(network.readout, rates),
        spikes=spikes,
    )
