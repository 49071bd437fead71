"""A network in PyTorch as a float `HardwareNetwork`: weights, constant currents and delays, as hardware has them.

Batch norm (running statistics), dropout and norm restriction become plain weights and constant currents, average
pooling becomes part of the convolution before it or a convolution of its own, and the dataset's normalisation is folded
into the first connection, so that inputs are the integer codes themselves.
"""

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.datasets import InputCoding
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
    Timing,
    TransposedConvolution,
    on_codes,
    pooled,
    with_timing,
)
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.network.layers import Synapse, layer_matrix


@torch.no_grad()
def lower_model(
    model: FeedbackSNN, coding: InputCoding, *, name: str, time_steps: int, timing: Timing = "hardware"
) -> HardwareNetwork:
    """Fold a network with its running statistics into a float one; what it computes in is float64.

    Parameters
    ----------
    model : in evaluation mode; one in float64 keeps all its digits.
    coding : what the input codes mean.
    name : of the network.
    timing : the delays: ``hardware``: one step for every connection; ``sequential``: the papers'.

    Raises
    ------
    UnsupportedError : if a layer of a kind from outside is too large to be a matrix.
    """
    names = model.population_names
    populations = tuple(
        Population(n, s, neuron) for n, s, neuron in zip(names, model.population_shapes, model.neurons, strict=True)
    )
    connections: list[Connection] = []
    currents: dict[str, Array] = {}  # constant ones of each population, of all connections into it
    for spec, synapse in zip(model.topology.connections, model.synapses, strict=True):
        source, target = INPUT if spec.source < 0 else names[spec.source], names[spec.target]
        folded, current = _folded(synapse)
        delay = int(spec.is_feedback)
        connections.append(Connection(spec.name, source, target, folded.weight, delay, geometry=folded.geometry))
        if synapse.bias is not None or synapse.batch_norm is not None:  # a pool and a feedback have none
            currents[target] = currents[target] + current if target in currents else current
    for target, current in currents.items():
        behind = max(number for number, c in enumerate(connections) if c.target == target and not c.delay)
        constant = Connection(f"{target}_current", ALWAYS_ON, target, current[:, None])
        connections.insert(behind + 1, constant)
    network = HardwareNetwork(
        name=name,
        input=InputSpec(model.input_shape, coding.kind, coding.maximum),
        populations=populations,
        connections=tuple(connections),
        readout=Readout(names[-1], _array(model.readout.weight), _array(model.readout.bias)),
        time_steps=time_steps,
    )
    return on_codes(with_timing(network, timing), coding)


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
    bias = torch.zeros(synapse.shape[0], dtype=weight.dtype) if synapse.bias is None else synapse.bias
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        wide = [1] * weight.dim()
        wide[1 if synapse.layer.transposed else 0] = -1
        weight = weight * scale.view(wide)
        bias = (bias - norm.running_mean) * scale + norm.bias
    positions = int(np.prod(synapse.shape[1:]))
    return _map(synapse, _array(weight)), np.repeat(_array(bias), positions)


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy().astype(np.float64))
