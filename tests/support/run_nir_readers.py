"""Run NIR files in Norse, Sinabs, snnTorch and nirtorch: a program for the environment of `nir_readers`.

    python run_nir_readers.py JOBS.json

Each job names a tool, a variant, a graph, a NumPy file with inputs (B, *shape) and steps, and where the answer goes:
every neuron node's spikes (T, B, N), the output (T, B, classes) under "output"; or what the tool said, under "error".
"""

import contextlib
import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

Module = torch.nn.Module


def norse(graph: Any, samples: int, variant: str) -> Module:
    import norse.torch

    step = json.loads(graph.metadata["fsnn_lava_plain"])["time_step"]
    return norse.torch.from_nir(graph, dt=step)


def sinabs(graph: Any, samples: int, variant: str) -> Module:
    import sinabs.activation
    import sinabs.layers
    import sinabs.nir

    network = sinabs.nir.from_nir(graph, batch_size=samples)
    if variant == "one spike a step":
        for layer in network.modules():
            if isinstance(layer, sinabs.layers.LIF):
                layer.spike_fn, layer.min_v_mem = sinabs.activation.SingleSpike, None
    return network


def snntorch(graph: Any, samples: int, variant: str) -> Module:
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):
        return import_from_nir(graph)


class Subtracting(Module):
    """A neuron for nirtorch, which has none: NIR's equations, but a spike subtracts the threshold."""

    def __init__(self, node: Any, step: float) -> None:
        super().__init__()
        leaky = isinstance(node, nir.LIF)
        self.keep = torch.as_tensor(1 - step / node.tau if leaky else 1.0)
        self.gain = torch.as_tensor(node.r * step / (node.tau if leaky else 1.0))
        self.threshold = torch.as_tensor(node.v_threshold)

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        v = self.gain * x if state is None else self.keep * state + self.gain * x
        spikes = (v > self.threshold).float()
        return spikes, v - spikes * self.threshold


def affine(node: Any) -> Module:
    """What nirtorch 2.6 makes of Affine, with its bias."""
    module = torch.nn.Linear(*node.weight.shape[::-1])
    module.weight.data, module.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return module


def nirtorch(graph: Any, samples: int, variant: str) -> Module:
    import nirtorch

    step = json.loads(graph.metadata["fsnn_lava_plain"])["time_step"]
    maps: dict[Any, Callable[[Any], Module]] = {kind: lambda n: Subtracting(n, step) for kind in (nir.IF, nir.LIF)}
    if variant != "its own Affine":
        maps[nir.Affine] = affine
    torch.manual_seed(0)
    return nirtorch.nir_to_torch(graph, maps)


def run(job: dict[str, Any]) -> dict[str, Any]:
    graph, given = nir.read(job["graph"]), np.load(job["inputs"])
    (source,) = (node for node in graph.nodes.values() if isinstance(node, nir.Input))
    shape = [int(n) for n in source.input_type["input"]]
    inputs = torch.from_numpy(given["inputs"].astype(np.float32)).reshape(-1, *shape)
    names = [name for name, node in graph.nodes.items() if isinstance(node, nir.IF | nir.LIF)]
    network = globals()[job["tool"]](graph, len(inputs), job["variant"])
    sent: dict[str, list[Any]] = {name: [] for name in [*names, "output"]}

    def listen(name: str) -> None:
        def hook(module: Module, arguments: Any, out: Any) -> None:
            sent[name].append((out[0] if isinstance(out, tuple) else out).reshape(len(inputs), -1).numpy().copy())

        network.get_submodule(name).register_forward_hook(hook)

    for name in names:
        listen(name)
    state = None
    with torch.no_grad():
        for _ in range(int(given["steps"])):
            out, state = network(inputs) if state is None else network(inputs, state)
            sent["output"].append(out.numpy().copy())
    return {name: np.stack(values) for name, values in sent.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        try:
            answer = run(job)
        except Exception as error:  # what the tool cannot do is part of the answer
            answer = {"error": np.array(f"{type(error).__name__}: {error}")}
        np.savez(job["out"], **answer)
