"""The bridge: a trained network as a float `HardwareNetwork`, and as a run to compare hardware with.

Batch norm (running statistics), dropout and norm restriction become plain weights and constant currents, average
pooling becomes part of the convolution before it or a convolution of its own, and the dataset's normalisation is folded
into the first connection, so that inputs are the integer codes themselves. The convolution pads with zeros what is
normalised: so on codes the constant current differs at the border.
"""

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.conversion.fold_normalisation import on_codes
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DENSE,
    INPUT,
    Array,
    Connection,
    Convolution,
    Geometry,
    HardwareNetwork,
    InputSpec,
    LinearMap,
    Population,
    Readout,
    RunResult,
    Timing,
    TransposedConvolution,
    check_inputs,
    pooled,
    rates_from_spikes,
    read_out,
    with_timing,
)
from fsnn_lava.network import Synapse, layer_matrix
from fsnn_lava.training import TrainedNetwork


def lower(trained: TrainedNetwork, *, timing: Timing = "hardware") -> HardwareNetwork:
    """Fold a trained network into a float one of weights, constant currents and delays, as hardware has them.

    >>> network = lower(trained)  # doctest: +SKIP

    Parameters
    ----------
    timing : the delays: ``hardware``: one step for every connection; ``sequential``: the papers'.

    Raises
    ------
    CheckpointError : if the weights do not fit the network.
    UnsupportedError : if a layer of a kind from outside is too large to be a matrix.
    """
    model = trained.model().double()
    names = model.population_names
    populations = tuple(Population(n, s, model.neuron) for n, s in zip(names, model.population_shapes, strict=True))
    connections: list[Connection] = []
    for source, target, synapse in zip((INPUT, *names), names, model.feedforward, strict=False):
        assert isinstance(synapse, Synapse)
        folded, current = _folded(synapse)
        name = f"{source}_to_{target}"
        connections.append(Connection(name, source, target, folded.weight, geometry=folded.geometry))
        if synapse.bias is not None:  # a pool has none
            connections.append(Connection(f"{target}_current", ALWAYS_ON, target, current[:, None]))
    if model.feedback is not None:
        returning = _map(model.feedback, _array(model.feedback.effective_weight()))
        feedback = Connection("feedback", names[-1], names[0], returning.weight, 1, geometry=returning.geometry)
        connections.append(feedback)
    network = HardwareNetwork(
        name=trained.config.name,
        input=InputSpec(trained.input_shape, trained.coding.kind, trained.coding.maximum),
        populations=populations,
        connections=tuple(connections),
        readout=Readout(names[-1], _array(model.readout.weight), _array(model.readout.bias)),
        time_steps=trained.config.network.time_steps,
        provenance=trained.provenance(),
    )
    return on_codes(with_timing(network, timing), trained.coding)


@torch.no_grad()
def run_torch(
    trained: TrainedNetwork, network: HardwareNetwork, codes: Array, *, time_steps: int, loop_delay: int | None = None
) -> RunResult:
    """Run the trained network itself in PyTorch, in float64, on the inputs that the hardware is given.

    Parameters
    ----------
    network : its lowered form, against whose input the codes are checked.
    codes : (B, *shape) graded codes or (T, B, *shape) event frames.
    loop_delay : steps until a spike of the last population reaches the first: 1 in the papers' timing, the number of
        populations on hardware; None: as trained.

    Raises
    ------
    InputError : if the codes do not fit.
    """
    check_inputs(network, codes, record=())
    model = trained.model().double()
    x = torch.from_numpy(trained.coding.decode(codes.astype(np.uint8), np.float64))
    bound = model.bind(network.input.samples(codes))
    run = bound.simulate(
        bound.drive(x, time_steps=time_steps), time_steps=time_steps, loop_delay=loop_delay, record=True
    )
    assert run.spikes is not None
    names = model.population_names
    spikes = {n: s.numpy() for n, s in zip(names, run.spikes, strict=True)}
    rates = {n: rates_from_spikes(s, model.neuron.leak) for n, s in spikes.items()}
    return RunResult(
        backend="torch",
        network=network.name,
        arithmetic="float",
        time_steps=time_steps,
        firing_rates=rates,
        spike_counts={n: s.sum(axis=0, dtype=np.int32) for n, s in spikes.items()},
        logits=read_out(network.readout, rates),
        spikes=spikes,
    )


def _map(synapse: Synapse, weight: Array) -> LinearMap:
    """The layer with these weights, and its pooling, as one linear map; of a kind from outside its matrix."""
    layer = synapse.layer
    if layer.is_outside:
        matrix = layer_matrix(layer, torch.from_numpy(weight), synapse.input_shape)
        return LinearMap(DENSE, np.ascontiguousarray(_array(matrix)), synapse.input_shape, synapse.shape)
    geometry: Geometry = DENSE
    if layer.transposed:
        geometry = TransposedConvolution(layer.stride, layer.padding, output_padding=1)
    elif layer.kind != "linear":
        geometry = Convolution(layer.stride, layer.padding)
        if synapse.pool is not None:
            weight, geometry = pooled(weight, geometry, synapse.pool.kernel)
    return LinearMap(geometry, weight, synapse.input_shape, synapse.shape)


def _folded(synapse: Synapse) -> tuple[LinearMap, Array]:
    """Map and constant current (N,) of a feedforward connection with its batch norm."""
    weight, norm = synapse.effective_weight(), synapse.batch_norm
    bias = torch.zeros(len(weight), dtype=weight.dtype) if synapse.bias is None else synapse.bias
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        bias = (bias - norm.running_mean) * scale + norm.bias
    positions = int(np.prod(synapse.shape[1:]))
    return _map(synapse, _array(weight)), np.repeat(_array(bias), positions)


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy().astype(np.float64))
