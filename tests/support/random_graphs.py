"""Random graphs of populations, as a configuration says them, and networks of them in which most populations fire."""

import functools
from typing import Any

import numpy as np
import torch

from fsnn_lava.config import ConnectionConfig, NetworkConfig, PopulationConfig
from fsnn_lava.config.layer_kinds import Shape
from fsnn_lava.network.feedback_network import FeedbackSNN

Layer = dict[str, Any]
"""What `ConnectionConfig` takes besides both ends."""
NAMES = "abcde"
LEAKS = (1.0, 1.0, 0.9, 0.8)


@functools.cache
def random_graph(seed: int, *, spide: bool = False, image: bool = False) -> tuple[NetworkConfig, Shape]:
    """One to five populations, each behind the input or another one, with skips, self-loops and loops between them.

    Parameters
    ----------
    spide : without batch norm and merged pools, through which its spikes cannot run back.
    image : with an image as input in any case, and no pool right behind it, whose means of normalised pixels would
        meet the threshold within the rounding.
    """
    rng = np.random.default_rng(seed)
    flat = bool(rng.random() >= 0.6) and not image
    shapes: dict[str, Shape] = {"input": _image(rng) if not flat else (int(rng.integers(2, 9)),)}
    connections = []
    for name in NAMES[: rng.choice([1, 2, 3, 4, 5], p=[0.15, 0.25, 0.25, 0.2, 0.15])]:
        source = str(rng.choice(list(shapes)))
        layer = _layer(rng, shapes[source], pools=not spide)
        while image and source == "input" and layer["layer"] == "P2":
            layer = _layer(rng, shapes[source], pools=not spide)
        shapes[name] = _reached(layer, shapes[source])
        connections.append(ConnectionConfig(source, name, **layer))
    populations = [name for name in shapes if name != "input"]
    for target in populations:
        for source in shapes:
            layer = _leading(rng, shapes[source], shapes[target])
            if layer is not None and rng.random() < 0.35:
                connections.append(ConnectionConfig(source, target, **layer))
    settings: dict[str, Any] = {"batch_norm": not spide and bool(rng.random() < 0.5), "leak": float(rng.choice(LEAKS))}
    settings |= {"spectral_norm": "frobenius"} if spide else {"spectral_norm_bound": float(rng.choice([0.3, 0.6]))}
    own = tuple(_constants(rng, name) for name in populations if rng.random() < 0.3)
    return NetworkConfig(
        "",
        tuple(connections),
        own,
        v_threshold=float(rng.choice([0.5, 1.0])),
        reset_amount=1.0,
        dropout=float(rng.choice([0.0, 0.2])),
        **settings,
    ), shapes["input"]


def random_graph_network(
    seed: int,
    *,
    spide: bool = False,
    image: bool = False,
    training: bool = False,
    dtype: torch.dtype = torch.float64,
) -> FeedbackSNN:
    """A network of a random graph, its weights such that most rates lie between 0 and 1."""
    config, shape = random_graph(seed, spide=spide, image=image)
    model = FeedbackSNN(config, shape, classes=3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for synapse in model.feedforward:
            if synapse.bias is None:  # of a pool, whose weights are no parameters
                continue
            synapse.weight.mul_(0.4)
            synapse.bias.add_(0.2 + 0.03 * torch.randn(synapse.shape[0], generator=generator))
            if synapse.batch_norm is not None:
                synapse.batch_norm.weight.fill_(0.3)
                synapse.batch_norm.bias.copy_(0.3 + 0.03 * torch.randn(synapse.shape[0], generator=generator))
                synapse.batch_norm.running_mean.copy_(0.1 * torch.randn(synapse.shape[0], generator=generator))
                synapse.batch_norm.running_var.copy_(0.5 + torch.rand(synapse.shape[0], generator=generator))
        for synapse in model.feedbacks:
            if hasattr(synapse.restriction, "gain"):
                synapse.restriction.gain.fill_(0.9 * synapse.restriction.bound)  # inside it, so that it has a gradient
    return model.to(dtype).train(training)


def inputs_of(model: FeedbackSNN, *, batch: int, steps: int | None, seed: int = 3) -> torch.Tensor:
    """Values from 0 to 1 (B, *shape), or with steps 0/1 frames (T, B, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    form = (batch, *model.input_shape) if steps is None else (steps, batch, *model.input_shape)
    x = torch.rand(form, generator=generator, dtype=torch.float64)
    x = x if steps is None else (x < 0.4).double()
    return x.to(model.readout.weight.dtype)


def _constants(rng: np.random.Generator, name: str) -> PopulationConfig:
    return PopulationConfig(
        name, float(rng.choice([0, 0.7])), float(rng.choice([0, 1.5])), float(rng.choice([0, 1.0, 0.9]))
    )


def _image(rng: np.random.Generator) -> Shape:
    height, width = ((4, 4), (4, 6), (6, 4), (3, 5))[int(rng.integers(4))]
    return (int(rng.integers(1, 4)), height, width)


def _layer(rng: np.random.Generator, source: Shape, *, pools: bool) -> Layer:
    """Any layer from that shape."""
    forms: list[Layer] = [{"layer": str(rng.integers(2, 9))}]
    if len(source) == 3:
        channels, kernel = rng.integers(1, 4), rng.choice([1, 3, 5])
        forms += 2 * [{"layer": f"{channels}C{kernel}"}] + [{"layer": f"{channels}C{kernel}s"}]
        forms += [{"layer": f"{channels}C{kernel}u"}] if max(source[1:]) <= 4 else []
        if source[1] % 2 == 0 and source[2] % 2 == 0:
            forms += [{"layer": "P2"}] + ([{"layer": f"{channels}C{kernel}-P2"}] if pools else [])
        forms += 2 * [_form(rng, source[0])]
    return forms[rng.integers(len(forms))]


def _form(rng: np.random.Generator, source_channels: int) -> Layer:
    """A convolution that the notation has no word for: oblong, even, dilated, of any stride, in groups."""
    groups = int(rng.choice([1, source_channels]))
    channels = groups * int(rng.integers(1, 3))
    forms: list[Layer] = [
        {"kernel": (1, 3)},
        {"kernel": (3, 5), "stride": 2},
        {"kernel": (2,), "padding": (1,)},
        {"kernel": (4, 2), "padding": (2, 1)},
        {"kernel": (3,), "padding": (1,), "stride": 3},
        {"kernel": (3,), "dilation": (2,)},
        {"kernel": (3, 1), "dilation": (1, 2)},
    ]
    return {"layer": f"{channels}C3", "groups": groups} | forms[rng.integers(len(forms))]


def _reached(layer: Layer, source: Shape) -> Shape:
    first, pool, _ = ConnectionConfig("input", "a", **layer).read(0)
    shape = first.output_shape(source)
    return shape if pool is None else pool.output_shape(shape)


def _leading(rng: np.random.Generator, source: Shape, target: Shape) -> Layer | None:
    """A layer from one shape to another, if there is one."""
    if len(target) == 1:
        return {"layer": str(target[0])}
    if len(source) == 1:
        return None
    forms: list[Layer] = [{"layer": f"{target[0]}C{kernel}{mark}"} for kernel in (1, 3, 5) for mark in ("", "s", "u")]
    forms += [{"layer": f"{target[0]}C3", "kernel": kernel} for kernel in ((1, 3), (3, 5))]
    forms += [{"layer": f"{target[0]}C3", "groups": target[0]}] if source[0] % target[0] == 0 else []
    found = [form for form in forms if _reached(form, source) == target]
    return found[rng.integers(len(found))] if found else None
