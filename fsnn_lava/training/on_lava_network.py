"""Between a torch network and the plain arrays that Lava trains: what can be trained there, and its weights both ways.

Lava computes in float64; the network's float32 values are float64 values, but not the other way round.
"""

import math

import torch
from torch import Tensor

from fsnn_lava.backends import FEEDBACK, Learning, PlasticNetwork, Synapses, TrainingJob
from fsnn_lava.config import TrainConfig, parse_spec
from fsnn_lava.datasets import Dataset
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import Array, FloatNeuron
from fsnn_lava.network import FeedbackSNN, FrobeniusRestriction
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.schedule import augmentation_of, learning_rate


def require_on_chip(config: TrainConfig, dataset: Dataset) -> None:
    """Require that the configured training can be said in Lava processes.

    Raises
    ------
    UnsupportedError : naming every violation at once.
    """
    network, training = config.network, config.training
    if network.connections or network.populations:
        raise UnsupportedError(
            f"training on Lava: found the graph {network.title}"
            f"{', populations with constants of their own' if network.populations else ''}; allowed: a chain in "
            "network.notation of linear layers and neurons of one kind, e.g. 200 (F200)"
        )
    spec = parse_spec(network.notation)
    others = [str(layer) for layer in spec.layers if layer.kind != "linear"]
    others += [f"F{spec.feedback}"] if spec.feedback is not None and spec.feedback.kind != "linear" else []
    found = []
    if training.method != "spide":
        found.append(f'training.method "{training.method}"; allowed: "spide", the method of spikes alone')
    if others:
        found.append(f"network.notation with {', '.join(others)}; allowed: linear layers alone, e.g. 200 (F200)")
    if network.batch_norm:
        found.append("network.batch_norm true; allowed: false, since statistics of a batch have no spiking form")
    if network.dropout:
        found.append(f"network.dropout {network.dropout}; allowed: 0, since masks would have to be drawn on the chip")
    if spec.feedback is not None and network.spectral_norm != "frobenius":
        found.append(
            f'network.spectral_norm "{network.spectral_norm}"; allowed: "frobenius", which a connection can compute '
            "from its own weights"
        )
    if training.device != "cpu":
        found.append(f'training.device "{training.device}"; allowed: "cpu", where Lava\'s simulator runs')
    if training.arithmetic != "float":
        found.append(f'training.arithmetic "{training.arithmetic}"; allowed: "float", in which Lava\'s processes learn')
    if training.label_smoothing:
        found.append(f"training.label_smoothing {training.label_smoothing}; allowed: 0")
    if training.time_steps_schedule:
        found.append(f"training.time_steps_schedule {list(training.time_steps_schedule)}; allowed: none")
    if dataset.coding.kind == "event":
        found.append(f'dataset "{dataset.name}" of event frames; allowed: constant inputs')
    if augmentation_of(training, dataset) is not None:
        found.append(f'dataset "{dataset.name}" with augmented samples; allowed: samples as they are')
    if found:
        listed = "\n  ".join(found)
        raise UnsupportedError(f"training on Lava: {len(found)} violation(s):\n  {listed}")


def plastic_network(model: FeedbackSNN, momenta: dict[str, Tensor] | None = None) -> PlasticNetwork:
    """Return the network's weights as Lava's connections begin with them.

    Parameters
    ----------
    model : whose configuration `require_on_chip` has accepted.
    momenta : parameter's name -> momentum; None: zero.
    """

    def synapses(name: str) -> Synapses:
        arrays: list[Array | None] = []
        for source in (dict(model.named_parameters()), momenta or {}):
            for what in ("weight", "bias"):
                tensor = source.get(f"{name}.{what}")
                arrays.append(None if tensor is None else tensor.detach().double().numpy().copy())
        weight, bias, weight_momentum, bias_momentum = arrays
        assert weight is not None
        return Synapses(weight, bias, weight_momentum, bias_momentum)

    neuron, feedback = model.neurons[0], model.feedback
    restriction = None if feedback is None else feedback.restriction
    assert feedback is None or isinstance(restriction, FrobeniusRestriction)
    return PlasticNetwork(
        tuple(synapses(f"feedforward.{index}") for index in range(len(model.population_names))),
        None if feedback is None else synapses(FEEDBACK),
        synapses("readout"),
        FloatNeuron(neuron.v_threshold, neuron.reset_amount, neuron.leak),
        math.inf if restriction is None else restriction.bound,
    )


def parameters_of(network: PlasticNetwork) -> dict[str, Tensor]:
    """Return parameter's name -> float64 values."""
    return _named_tensors(network, "")


def momenta_of(network: PlasticNetwork) -> dict[str, Tensor]:
    """Return parameter's name -> momentum, float64; empty before the first update."""
    return _named_tensors(network, "_momentum")


def _named_tensors(network: PlasticNetwork, ending: str) -> dict[str, Tensor]:
    return {
        f"{name}.{what}": torch.from_numpy(array.copy())
        for name, synapses in network.named().items()
        for what in ("weight", "bias")
        if (array := getattr(synapses, f"{what}{ending}")) is not None
    }


def training_job(
    network: PlasticNetwork,
    config: TrainConfig,
    samples: DeviceSamples,
    batches: list[Tensor],
    *,
    epoch: int,
    first_iteration: int,
    recorded: int = 0,
) -> TrainingJob:
    """Make a job of those batches of an epoch, one sample after the other.

    Parameters
    ----------
    batches : indices of the samples of each.
    first_iteration : number of the first batch over the whole training, from 0.
    recorded : samples whose spikes are recorded.
    """
    training = config.training
    x, labels = samples.batch(torch.cat(batches))
    return TrainingJob(
        network,
        Learning(
            time_steps=config.network.time_steps,
            time_steps_back=training.time_steps_back,
            loss_scale=training.loss_scale,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        ),
        x.flatten(1).double().numpy(),
        labels.numpy(),
        tuple(len(batch) for batch in batches),
        tuple(
            learning_rate(training, samples=len(samples), epoch=epoch, iteration=first_iteration + index)
            for index in range(len(batches))
        ),
        recorded,
    )
