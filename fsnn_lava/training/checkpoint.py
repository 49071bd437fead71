"""A trained network, or a training in progress, as one safetensors file.

The file holds tensors and, in its header, JSON text: nothing in it can execute. It is written to a temporary file in
the same folder and renamed, so that a reader sees either the old or the new file, whole.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import fsnn_lava
from fsnn_lava.config import TrainConfig, config_from_dict, config_to_dict, topology_of
from fsnn_lava.datasets import Dataset, InputCoding
from fsnn_lava.errors import CheckpointError, ConfigError, FsnnError
from fsnn_lava.files import known_format, write_whole
from fsnn_lava.network import FeedbackSNN, check_memory
from fsnn_lava.training.integers.network import IntegerSNN

FORMAT = "fsnn-lava-checkpoint"
VERSION = 1


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network with its weights and where they came from.

    Parameters
    ----------
    config : the training's settings; notation and neurons are in it.
    input_shape : (C, H, W) or (N,) of one sample.
    classes : their names.
    coding : what the input codes mean.
    weights : state of the model, name -> tensor.
    metrics : JSON-compatible figures of the epoch that the weights are from.
    """

    config: TrainConfig
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    coding: InputCoding
    weights: Mapping[str, Tensor]
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> FeedbackSNN:
        """Build the network in evaluation mode, with these weights.

        Raises
        ------
        CheckpointError : if weights are missing, too many, of another shape or not finite.
        """
        model = new_model(self.config, self.input_shape, len(self.classes), coding=self.coding)
        expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        found = {name: tuple(t.shape) for name, t in self.weights.items()}
        if expected != found:
            wrong = sorted(set(expected.items()) ^ set(found.items()))
            raise CheckpointError(
                f'weights do not fit the network "{self.config.network.title}": '
                f"differing names or shapes: {', '.join(f'{n} {s}' for n, s in wrong[:6])}"
            )
        broken = not_finite(self.weights)
        if broken:
            raise CheckpointError(f'weight "{broken}" has values that are not finite; the training diverged')
        model.eval()  # before: integers are those of the checkpoint, not what shadows round to on this machine
        model.load_state_dict(dict(self.weights))
        return model

    def provenance(self) -> dict[str, Any]:
        """Return for JSON what a network that is made of it says of its origin."""
        return {
            "package": fsnn_lava.__version__,
            "config": config_to_dict(self.config),
            "metrics": dict(self.metrics),
            "classes": list(self.classes),
            "input_coding": dataclasses.asdict(self.coding),
        }


def not_finite(weights: Mapping[str, Tensor]) -> str:
    """Find the name of the first weight with a value that is not finite; empty if all are."""
    floats = {name: t for name, t in weights.items() if t.is_floating_point()}
    sound = torch.stack([torch.isfinite(t).all() for t in floats.values()]).tolist()
    return next((name for name, is_sound in zip(floats, sound, strict=True) if not is_sound), "")


def momenta(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the momentum of every parameter that has one, under its name, to be kept as a checkpoint's state."""
    names = [name for name, _ in model.named_parameters()]
    buffers = {i: s.get("momentum_buffer") for i, s in optimizer.state_dict()["state"].items()}
    return {f"momentum.{names[i]}": buffer for i, buffer in buffers.items() if buffer is not None}


def load_momenta(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give the optimizer the momenta that `momenta` took, on the device and in the layout of the parameters."""
    packed = optimizer.state_dict()
    packed["state"] = {
        i: {"momentum_buffer": torch.empty_like(parameter).copy_(state[f"momentum.{name}"])}
        for i, (name, parameter) in enumerate(model.named_parameters())
        if f"momentum.{name}" in state
    }
    optimizer.load_state_dict(packed)


def new_model(
    config: TrainConfig, input_shape: tuple[int, ...], classes: int, *, coding: InputCoding | None = None
) -> FeedbackSNN:
    """Build the untrained network of a configuration, in training mode.

    Parameters
    ----------
    coding : what input codes mean, which a network that is trained in integers needs to know.

    Raises
    ------
    ConfigError : if the machine cannot hold it.
    """
    check_memory(config, input_shape, classes)
    training = config.training
    if training.arithmetic == "integer":
        if coding is None:
            raise ConfigError("a network in integers: found no coding of its input; give coding=")
        return IntegerSNN(config, input_shape, classes=classes, coding=coding)
    return FeedbackSNN(config.network, input_shape, classes=classes, seed=training.seed, timing=training.timing)


def take_weights(model: FeedbackSNN, origin: TrainedNetwork, *, dataset: Dataset) -> None:
    """Give a new model the weights of a trained network, whatever arithmetic either is trained in.

    Raises
    ------
    CheckpointError : if it is another network, or of other inputs.
    """
    theirs = origin.input_shape, origin.coding, len(origin.classes)
    ours = dataset.input_shape, dataset.coding, len(dataset.classes)
    own = {name: t for name, t in model.state_dict().items() if not name.startswith("integers.")}
    given = {name: t for name, t in origin.weights.items() if not name.startswith("integers.")}
    shapes = [{name: tuple(t.shape) for name, t in weights.items()} for weights in (given, own)]
    # Weights of the same shapes may join other populations, or be of another stride.
    same_network = topology_of(origin.config.network, origin.input_shape) == model.topology
    if theirs != ours or not same_network or shapes[0] != shapes[1]:
        wrong = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        what = ", ".join(f"{name} {shape}" for name, shape in wrong[:4])
        if theirs == ours and not same_network:
            what = f"the network is to have {model.topology}"
        elif theirs != ours:
            what = f"inputs {theirs}, here {ours}"
        raise CheckpointError(
            f'weights of "{origin.config.network.title}" do not fit this network and dataset: {what}; a training '
            "that begins with another one's weights has its notation and its dataset"
        )
    model.load_state_dict(given, strict=False)


def save_checkpoint(
    trained: TrainedNetwork,
    path: Path,
    *,
    progress: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a trained network, and with `progress` and `state` what a training needs to go on.

    Raises
    ------
    OutputError : if the file cannot be written; an older one stays as it was.
    """
    tensors = {f"model.{name}": t for name, t in trained.weights.items()}
    tensors |= {f"state.{name}": t for name, t in (state or {}).items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "package": fsnn_lava.__version__,
        "config": json.dumps(config_to_dict(trained.config)),
        "input_shape": json.dumps(trained.input_shape),
        "classes": json.dumps(trained.classes),
        "coding": json.dumps(dataclasses.asdict(trained.coding)),
        "metrics": json.dumps(dict(trained.metrics)),
        "progress": json.dumps(dict(progress or {})),
    }
    header["checksum"] = _checksum(tensors, header)
    write_whole(path, save(tensors, metadata=header))


def load_checkpoint(path: Path) -> TrainedNetwork:
    """Read the trained network in a checkpoint.

    Raises
    ------
    CheckpointError : the file is missing, truncated, altered, of another version or not a checkpoint.
    """
    return load_training(path)[0]


def load_training(path: Path) -> tuple[TrainedNetwork, dict[str, Any], dict[str, Tensor]]:
    """Read trained network, progress and state of a checkpoint, as `save_checkpoint` took them.

    Raises
    ------
    CheckpointError : as `load_checkpoint`.
    """
    tensors, header = _read(path)
    try:
        coding = json.loads(header["coding"])
        trained = TrainedNetwork(
            config=config_from_dict(json.loads(header["config"])),
            input_shape=tuple(json.loads(header["input_shape"])),
            classes=tuple(json.loads(header["classes"])),
            coding=InputCoding.from_dict(coding),
            weights=_part(tensors, "model."),
            metrics=json.loads(header["metrics"]),
        )
        return trained, json.loads(header["progress"]), _part(tensors, "state.")
    except (KeyError, TypeError, json.JSONDecodeError, FsnnError) as error:
        raise CheckpointError(f"checkpoint {path}: its header cannot be understood: {error}") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        begun = path.with_name("last.safetensors").is_file()
        way = f"no epoch is whole yet; go on: fsnn train --resume {path.parent}" if begun else "train first: fsnn train"
        raise CheckpointError(f"checkpoint {path}: no such file; {way}")
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path}: truncated or not a safetensors file ({error}); use another checkpoint or train again."
            f"{known_format(path)}"
        ) from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f'checkpoint {path}: found format {header.get("format")!r}; expected "{FORMAT}"')
    if header.get("version") != str(VERSION):
        raise CheckpointError(
            f"checkpoint {path}: found version {header.get('version')}; this program reads version {VERSION}"
        )
    if header.pop("checksum", None) != _checksum(tensors, header):
        raise CheckpointError(f"checkpoint {path}: the checksum does not match; the file was altered after writing")
    return tensors, header


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for key in sorted(header):
        digest.update(f"{key}={header[key]};".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
