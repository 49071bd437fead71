"""Settings of a training and of a deployment: frozen, typed, read from TOML, checked across fields.

Every field has a default, so an empty file is a valid configuration; an unknown key never is.
"""

from __future__ import annotations  # so that `one_of` looks up names when somebody asks, not before

import dataclasses
import difflib
import math
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fsnn_lava.config.convolution_taps import Taps, taps_of
from fsnn_lava.config.methods import METHODS, SOLVERS, SURROGATES, require
from fsnn_lava.config.neurons import NEURONS
from fsnn_lava.config.notation import LayerSpec, parse_connection, parse_spec
from fsnn_lava.config.registry import one_of
from fsnn_lava.config.topology import INPUT, population_order
from fsnn_lava.errors import ConfigError, SpecError, counted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PrecisionName = Literal["float32", "tf32", "bf16"]
WeightBits = Literal[2, 3, 4, 5, 6, 7, 8]
WeightExponents = Literal["all", "input"]
ConstantCurrents = Literal["pulsed", "whole"]

CHAIN = "200 (F200)"
"""The network of a configuration that names none."""

SEED_LIMIT = 2**32
"""Seeds are below it, so that every generator derived from one takes it whole."""

_UNCHANGED = {
    "timing": "sequential",
    "adjoint": "equilibrium",
    "arithmetic": "float",
    "weight_bits": 8,
    "symmetric": False,
    "exponents": "all",
    "time_steps_schedule": (),
    "time_steps_by": "epoch",
    "schedule": "step",
    "random_shift": -1,
    "label_smoothing": 0.0,
}
"""Settings under [training] that older versions did not know, and with which a run is as theirs."""

_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")


@dataclass(frozen=True)
class ConnectionConfig:
    """A connection of a graph: [[network.connections]] in a file."""

    source: str
    """Name of a population, or "input"."""
    target: str
    """Name of a population."""
    layer: str
    """What it is, in the notation: 64C5s, 64C3-P2 (pooled), 200 (every neuron with every one), or P2 (averages)."""
    kernel: tuple[int, ...] = ()
    """Of a convolution, [side] or [rows, columns], also even; none: that of `layer`."""
    stride: int = 0
    """Of a convolution; 0: that of `layer`."""
    padding: tuple[int, ...] = ()
    """Of a convolution, [both] or [rows, columns]; none: half the kernel."""
    dilation: tuple[int, ...] = ()
    """Of a convolution, [both] or [rows, columns]; none: 1."""
    groups: int = 1
    """Of a convolution's channels."""

    def __post_init__(self) -> None:
        for name in ("kernel", "padding", "dilation"):  # a side that stands alone is that of both axes
            value = getattr(self, name)
            if isinstance(value, int | list):
                object.__setattr__(self, name, (value,) if isinstance(value, int) else tuple(value))

    def read(self, index: int) -> tuple[LayerSpec, LayerSpec | None, Taps | None]:
        """The layer, the pool merged into it, and where the weights lie if not everywhere.

        Parameters
        ----------
        index : of the connection among a network's, for messages.

        Raises
        ------
        SpecError : if it cannot be read, or the convolution is of a form that hardware has not.
        """
        layer, pool = parse_connection(self.layer, self.place(index), even=bool(self.padding))
        form = {name: getattr(self, name) for name in ("kernel", "stride", "padding", "dilation", "groups")}
        try:
            square, taps = taps_of(layer, **form)
        except SpecError as error:
            raise SpecError(f"{self.place(index)}: {error}") from None
        return square, pool, taps

    def place(self, index: int) -> str:
        """Say which of a network's connections it is."""
        return f"network.connections {index + 1} ({self.source} -> {self.target})"

    def __str__(self) -> str:
        words = [self.layer]
        for name in ("kernel", "stride", "padding", "dilation", "groups"):
            value = getattr(self, name)
            sides = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [] if value in ((), 0, 1) else [f"{name} {sides}"]
        return f"{self.source} -{' '.join(words)}-> {self.target}"


@dataclass(frozen=True)
class PopulationConfig:
    """Constants of one population's neurons, where they are not the network's: [[network.populations]] in a file."""

    name: str
    """Of the population; in the notation's chain population1, population2, and so on."""
    v_threshold: float = 0.0
    """Firing threshold V_th; 0: the network's."""
    reset_amount: float = 0.0
    """What a spike subtracts from the potential, r; 0: the network's."""
    leak: float = 0.0
    """Share of the potential kept per step; 0: the network's."""
    reset: Literal["", "subtract", "zero"] = ""
    """What a spike does to the potential; nothing: what it does in the network."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network and its neurons."""

    notation: str = CHAIN
    """A chain with one feedback in the paper's notation, e.g. "64C5s (F64C5)". Any other graph is written in a file,
    one [[network.connections]] after the other, in place of this."""
    connections: tuple[ConnectionConfig, ...] = ()
    """Connections of a graph; the last population that they name first as a target is read out."""
    populations: tuple[PopulationConfig, ...] = ()
    """Populations with constants of their own."""
    v_threshold: float = 2.0
    """Firing threshold V_th."""
    reset_amount: float = 2.0
    """What a spike subtracts from the potential, r."""
    leak: float = 1.0
    """Share of the potential kept per step; 1 is IF, below 1 LIF."""
    reset: Literal["subtract", "zero"] = "subtract"
    """What a spike does to the potential. subtract: less reset_amount. zero: it becomes 0, and reset_amount means
    nothing; such a network has no equilibrium and is trained by bptt alone."""
    neuron: Annotated[str, one_of(NEURONS)] = "lif"
    """Neuron model, of `fsnn_lava.config.NEURONS`, which makes the neuron's constants of these settings."""
    time_steps: int = 30
    """Steps T of the spiking run."""
    batch_norm: bool = True
    """Batch norm on every feedforward connection."""
    dropout: float = 0.2
    """Share of currents dropped, one mask per connection and sample for all steps."""
    dropout_on: Literal["all", "last"] = "all"
    """Which connections drop currents: all, feedback included, or the one into the last population alone."""
    pooling: Literal["merged", "spiking"] = "merged"
    """What P<window> means: a part of the connection before it (IDE), or a population that spikes (SPIDE)."""
    spectral_norm_bound: float = 1.0
    """Largest norm of the feedback weights, c."""
    spectral_norm: Literal["reshaped", "operator", "frobenius"] = "reshaped"
    """Which norm is bounded: of the kernel as a matrix (IDE as published), of the operator, or of all weights as one
    vector (SPIDE as published; at least as large as that of the matrix)."""
    initial_weights: Literal["unit_filters", "kaiming_normal"] = "unit_filters"
    """unit_filters: uniform, every output filter of length 1 (IDE); kaiming_normal: with variance 2 / fan-in."""
    initial_transposed_scale: float = 1.0
    """Factor of a transposed convolution's initial weights."""

    def __post_init__(self) -> None:
        if self.connections and self.notation == CHAIN:
            object.__setattr__(self, "notation", "")
        found = f"{self.notation!r} and {counted(len(self.connections), 'connection')}"
        allowed = "one of the two, a chain in the notation or a graph of connections"
        require(bool(self.notation) != bool(self.connections), "network.notation and connections", found, allowed)

    @property
    def title(self) -> str:
        """The network in words: its notation, or its connections one after the other."""
        return self.notation or ", ".join(map(str, self.connections))

    def layers(self) -> dict[str, tuple[LayerSpec, LayerSpec | None]]:
        """The layer and merged pool of each connection, by what messages call it.

        Raises
        ------
        SpecError : the notation, or a connection's layer, cannot be read.
        """
        if self.connections:
            return {c.place(i): c.read(i)[:2] for i, c in enumerate(self.connections)}
        spec = parse_spec(self.notation)
        found = {f"layer {i}": layer for i, layer in enumerate(spec.layers, start=1)}
        found |= {} if spec.feedback is None else {"feedback": spec.feedback}
        return {f'{where} of network.notation "{spec}"': (layer, None) for where, layer in found.items()}


@dataclass(frozen=True)
class TrainingConfig:
    """Momentum SGD with the published schedule, and how the gradient is found."""

    method: Annotated[str, one_of(METHODS)] = "ide"
    """How gradients are found: by a method of `fsnn_lava.config.METHODS`, listed at the top of --help."""
    timing: Literal["sequential", "hardware"] = "sequential"
    """Delays of the network while it is trained. sequential: as in the papers, 0 forwards and 1 back; hardware: 1 on
    every connection, so that what is trained is what runs on Lava. With one population they are the same."""
    arithmetic: Literal["float", "integer"] = "float"
    """What runs in every iteration. integer: the network that would be exported then, in hardware timing; gradients go
    straight through the rounding to weights in floats. ide and spide alone, on a CPU, without dropout."""
    weight_bits: WeightBits = 8
    """Integer arithmetic alone: width of the signed weight mantissas."""
    symmetric: bool = False
    """Integer arithmetic alone: without the most negative mantissa; with 2 bits ternary weights, -1, 0 and 1."""
    exponents: WeightExponents = "all"
    """Integer arithmetic alone: which small weights get an exponent below 0, as of `fsnn export`."""
    time_steps_schedule: tuple[int, ...] = ()
    """Steps T of the training, one after the other or drawn; none: network.time_steps, which tests always run."""
    time_steps_by: Literal["epoch", "batch"] = "epoch"
    """How that schedule is used. epoch: each T for as many epochs, in order, e.g. few steps first; batch: each batch
    draws one of them, so that one network serves all."""
    epochs: int = 100
    """Passes over the training samples."""
    batch_size: int = 128
    """Samples per update."""
    learning_rate: float = 0.05
    """Largest learning rate: with `step`, that before the first milestone."""
    schedule: Literal["step", "one_cycle", "cosine"] = "step"
    """Course of the learning rate. step: by `milestones`, as published; one_cycle: up and down again along cosines, for
    few epochs (torch's OneCycleLR); cosine: down to zero along half a cosine (CosineAnnealingLR)."""
    milestones: tuple[int, ...] = (30, 60, 90)
    """step alone: epochs at which the learning rate is multiplied by `learning_rate_decay`."""
    learning_rate_decay: float = 0.1
    """step alone: factor of the learning rate at each milestone."""
    warmup_iterations: int = 0
    """Iterations over which the learning rate rises to its value: linearly, with one_cycle along half a cosine (0:
    over 0.3 of the training)."""
    random_shift: int = -1
    """Training images are moved by up to so many pixels, at random, and black comes in; -1: as published for the
    dataset (CIFAR-10 and CIFAR-100 by 4, others not at all). Whether they are mirrored too stays as published."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes, in training alone: the loss of tests knows none."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """L2 penalty on every parameter, as a share of it added to its gradient."""
    max_gradient_norm: float = 0.0
    """Length to which a longer gradient is cut, all parameters as one vector; 0: never."""
    seed: int = 0
    """Seed of the weights, the order of samples and the dropout masks."""
    adjoint: Literal["equilibrium", "window"] = "equilibrium"
    """ide alone: of what the gradient is. equilibrium: of the rates at rest, as published; window: of those after T
    steps, in which a spike comes round the loop at most (T - 1) / loop delay times: meant for a T of few loops."""
    adjoint_solver: Annotated[str, one_of(SOLVERS)] = "fixed_point"
    """ide alone: solver of g = dL/da + J^T g."""
    adjoint_tolerance: float = 6e-3
    """ide alone: relative residual at which the adjoint solve stops."""
    adjoint_max_steps: int = 50
    """ide alone: products with J^T after which a solver gives up and hands on to the next (counted and logged)."""
    contraction: float = 0.95
    """ide alone: largest gain of the loop, by which the adjoint solve sees a difference grow once around it; where it
    found more, the feedback's weights are scaled back after the update. 0: no bound. A window's gain is known from its
    third loop on: a shorter one bounds nothing, and logs a gain of 0."""
    time_steps_back: int = 100
    """spide alone: steps of the second phase, whose rates resolve a gradient to 1 / steps."""
    loss_scale: float = 100.0
    """spide alone: factor of the loss in the second phase, divided out of the gradient again."""
    surrogate: Annotated[str, one_of(SURROGATES)] = "rectangular"
    """bptt alone: the curve that stands for the derivative of a spike."""
    surrogate_width: float = 2.0
    """bptt alone: width of that curve, in the unit of the potential."""
    device: str = "cpu"
    """cpu, cuda or cuda:N. Another device sums in another order, so that the last bits of a run differ."""
    precision: PrecisionName = "float32"
    """Products of the backward pass: float32, tf32 (CUDA alone) or bf16 (not spide; on a CPU for processors with AMX or
    AVX-512 BF16). Spikes and rates stay those of float32, but for its last bits with bf16 on a CPU."""
    compile: bool = False
    """Fuse the elementwise part of a spiking step with torch.compile, not on a CPU; the first iterations take long."""
    sync_batch_norm: bool = False
    """Statistics of batch norm over the whole batch where several processes share it, not over each one's part."""
    checkpoint_minutes: float = 5.0
    """Longest time between two checkpoints; one is also written after every epoch."""
    threads: int = 0
    """CPU threads; 0: as many as torch chooses, which is slow beside other jobs. Sums over another number of threads
    round differently, so that the run takes another course."""

    @property
    def runs_in(self) -> Literal["sequential", "hardware"]:
        """Timing in which the network is trained: that of the hardware where it is trained in integers."""
        return "hardware" if self.arithmetic == "integer" else self.timing


@dataclass(frozen=True)
class DataConfig:
    """How data that has no loader here becomes samples: your own, or that of torchvision and tonic."""

    test_share: float = 0.2
    """Share of each class that tests, where the data has no test part of its own."""
    seed: int = 0
    """Of the draw of that share, from arrays. Images are drawn by a hash of their names."""
    grey: bool = False
    """Colour images become grey."""
    height: int = 0
    """Height and width to which images are scaled; of event frames, in cells of the sensor. 0: as they are."""
    width: int = 0
    """See height."""
    sensor_height: int = 0
    """Height and width of the event camera in pixels, which recordings of events need."""
    sensor_width: int = 0
    """See sensor_height."""
    frames: int = 30
    """Frames that a recording of events, or a window of it, becomes: one for each time step of the network."""
    frames_by: Literal["count", "time"] = "count"
    """count: each frame has as many events; time: each takes as long."""
    window_ms: float = 0.0
    """Recordings are cut into windows of so many milliseconds, each a sample: the last test_share of each recording's
    tests, one at least. 0: whole recordings."""
    flip: bool = False
    """Every second training image, chosen at random, is mirrored from left to right."""
    sha256: str = ""
    """Hash of the content that must be found; empty: whatever there is. A training notes that of its data."""

    def __post_init__(self) -> None:
        require(0 < self.test_share < 1, "data.test_share", self.test_share, "0 < test_share < 1")
        require(0 <= self.seed < SEED_LIMIT, "data.seed", self.seed, f"0 .. {SEED_LIMIT - 1}")
        for name in ("height", "sensor_height"):
            sides = getattr(self, name), getattr(self, name.replace("height", "width"))
            both = min(sides) >= 0 and (min(sides) > 0) == (max(sides) > 0)
            require(both, f"data.{name} and width", sides, "both above 0, or both 0")
        require(self.frames >= 1, "data.frames", self.frames, "at least 1")
        require(self.frames_by in ("count", "time"), "data.frames_by", self.frames_by, "count or time")
        require(0 <= self.window_ms < math.inf, "data.window_ms", self.window_ms, "a finite number >= 0")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run."""

    name: str = "digits"
    """Name of the run's folder. A run on another dataset than its config's is named after that, if no name is given."""
    dataset: str = "digits"
    """Name of a dataset, listed at the top of --help; torchvision:NAME or tonic:NAME; or your own: a file of arrays
    (.npz), a folder of class folders of images or recordings, or package.module:function, which returns a Dataset."""
    published: str = ""
    """The published figure that this configuration reproduces, if any."""
    train_samples: int = 0
    """Training samples to use, the classes in proportion; 0: all. What is measured with fewer is marked as partial."""
    test_samples: int = 0
    """Test samples to use, likewise."""
    validation_samples: int = 0
    """Training samples to hold out, on which the best epoch is chosen; 0: on the test samples, as published."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)

    @property
    def most_steps(self) -> int:
        """Largest T that the network runs for, in training or test."""
        return max(self.network.time_steps, *self.training.time_steps_schedule, 0)

    def __post_init__(self) -> None:
        network, training = self.network, self.training
        require(_is_file_name(self.name), "name", self.name, "letters, digits, '_', '-' and '.'")
        _check_graph(network)
        for name in ("v_threshold", "reset_amount", "spectral_norm_bound", "initial_transposed_scale"):
            value = getattr(network, name)
            require(_positive(value), f"network.{name}", value, "a finite number > 0")
        require(0 < network.leak <= 1, "network.leak", network.leak, "0 < leak <= 1 (1 is IF)")
        NEURONS.require(network.neuron)
        require(network.time_steps >= 1, "network.time_steps", network.time_steps, "at least 1")
        for name in ("epochs", "batch_size", "adjoint_max_steps", "time_steps_back"):
            require(getattr(training, name) >= 1, f"training.{name}", getattr(training, name), "at least 1")
        for name in (
            "learning_rate",
            "learning_rate_decay",
            "adjoint_tolerance",
            "surrogate_width",
            "loss_scale",
            "checkpoint_minutes",
        ):
            value = getattr(training, name)
            require(_positive(value), f"training.{name}", value, "a finite number > 0")
        for name in ("threads", "warmup_iterations", "weight_decay", "max_gradient_norm", "contraction"):
            value = getattr(training, name)
            require(0 <= value < math.inf, f"training.{name}", value, "a finite number >= 0")
        for name in ("train_samples", "test_samples", "validation_samples"):
            nothing = "none" if name == "validation_samples" else "all"
            require(getattr(self, name) >= 0, name, getattr(self, name), f"at least 0 (0: {nothing})")
        schedule = training.time_steps_schedule
        require(
            all(steps >= 1 for steps in schedule), "training.time_steps_schedule", schedule, "numbers of at least 1"
        )
        require(
            training.time_steps_by == "batch" or len(schedule) <= training.epochs,
            "training.time_steps_schedule",
            schedule,
            f"at most one T for each of the {training.epochs} epochs",
        )
        _check_integers(network, training)
        _check_dropout(network)
        _check_device(training)
        SOLVERS.require(training.adjoint_solver)
        SURROGATES.require(training.surrogate)
        _check_reset(network, training)
        check = METHODS.get(training.method).check
        if check is not None:
            check(network, training)
        shift = training.random_shift
        require(shift >= -1, "training.random_shift", shift, "at least 0, or -1 (as published for the dataset)")
        smoothing = training.label_smoothing
        require(0 <= smoothing < 1, "training.label_smoothing", smoothing, "0 <= label_smoothing < 1")
        require(0 <= training.momentum < 1, "training.momentum", training.momentum, "0 <= momentum < 1")
        require(0 <= training.seed < SEED_LIMIT, "training.seed", training.seed, f"0 .. {SEED_LIMIT - 1}")
        rising = all(a < b for a, b in zip((0, *training.milestones), training.milestones, strict=False))
        require(rising, "training.milestones", training.milestones, "epochs > 0 in rising order")
        require(
            network.batch_norm is False or training.batch_size >= 2,
            "training.batch_size",
            training.batch_size,
            "at least 2 with network.batch_norm = true (statistics of one sample are not defined)",
        )


def _check_graph(network: NetworkConfig) -> None:
    """Names of populations and connections, and that all layers can be read; shapes need the input's."""
    network.layers()
    names = population_order(network)
    for index, c in enumerate(network.connections):
        for name in (c.source, c.target):
            require(_is_file_name(name), c.place(index), name, "names of letters, digits, '_', '-' and '.'")
        require(c.target not in (INPUT, "always_on"), c.place(index), c.target, "the name of a population")
        sources = ", ".join((INPUT, *names))
        require(
            c.source in (INPUT, *names), c.place(index), c.source, f"a source that some connection leads to: {sources}"
        )
    if network.connections:
        entries = any(c.source == INPUT for c in network.connections)
        require(entries, "network.connections", "none from the input", 'at least one with source = "input"')
    own = [p.name for p in network.populations]
    known = names or tuple(f"population{i + 1}" for i in range(len(parse_spec(network.notation).layers)))
    for p in network.populations:
        where = f'network.populations "{p.name}"'
        require(own.count(p.name) == 1 and p.name in known, where, p.name, f"each once at most of {', '.join(known)}")
        for what in ("v_threshold", "reset_amount"):
            value = getattr(p, what)
            require(0 <= value < math.inf, f"{where}.{what}", value, "a finite number > 0, or 0 for the network's")
        require(0 <= p.leak <= 1, f"{where}.leak", p.leak, "0 < leak <= 1, or 0 for the network's")
        require(p.reset in ("", "subtract", "zero"), f"{where}.reset", p.reset, "subtract, zero, or nothing")


def _check_integers(network: NetworkConfig, training: TrainingConfig) -> None:
    """What can be done in integers, and the settings that only integers have."""
    if training.arithmetic == "float":
        for name, default in (("weight_bits", 8), ("symmetric", False), ("exponents", "all")):
            value = getattr(training, name)
            allowed = (
                f'{default} with training.arithmetic = "float"; train in integers for others, or round afterwards: '
                "fsnn export --weight-bits N --symmetric --exponents input"
            )
            require(value == default, f"training.{name}", value, allowed)
        return
    _check_exponents("training.exponents", training.exponents)
    integer = 'with training.arithmetic = "integer"'
    methods = [name for name in METHODS if METHODS.get(name).integers]
    require(training.method in methods, "training.method", training.method, f"{' or '.join(methods)} {integer}")
    require(training.device == "cpu", "training.device", training.device, f"cpu {integer}")
    for where, (layer, _) in network.layers().items():
        require(not layer.is_outside, where, str(layer), f"convolutions, pools and linear layers {integer}")
    require(
        not network.connections,
        "network.connections",
        network.title,
        f"a chain in network.notation {integer}; floats train any graph",
    )
    own = [p.name for p in network.populations]
    require(not own, "network.populations", own, f"none {integer}: neurons of one kind")


def _check_reset(network: NetworkConfig, training: TrainingConfig) -> None:
    """What a spike may do: the gradient at an equilibrium needs one."""
    require(network.reset in ("subtract", "zero"), "network.reset", network.reset, "subtract or zero")
    to_zero = "zero" in (network.reset, *(p.reset for p in network.populations))
    without = [name for name in METHODS if not METHODS.get(name).at_equilibrium]
    require(
        not to_zero or training.method in without,
        "training.method",
        training.method,
        f"{' or '.join(without)} with a reset to zero: there is no equilibrium rate clamp(I / r), since what a "
        "reset to zero throws away depends on when the input arrives",
    )


def _check_dropout(network: NetworkConfig) -> None:
    require(0 <= network.dropout < 1, "network.dropout", network.dropout, "0 <= dropout < 1")
    if network.connections:
        last = population_order(network)[-1]
        kinds = [network.layers()[c.place(i)][0].kind for i, c in enumerate(network.connections) if c.target == last]
        ends_in_pool = set(kinds) == {"pool"}
    else:
        ends_in_pool = network.pooling == "spiking" and parse_spec(network.notation).layers[-1].kind == "pool"
    require(
        not (network.dropout and network.dropout_on == "last" and ends_in_pool),
        "network.dropout_on",
        network.dropout_on,
        '"all" where the network ends in a pool, into which nothing is dropped',
    )


def _check_device(training: TrainingConfig) -> None:
    require(bool(_DEVICE.fullmatch(training.device)), "training.device", training.device, "cpu, cuda or cuda:N")
    require(
        training.precision != "tf32" or training.device != "cpu",
        "training.precision",
        training.precision,
        "float32 or bf16 on a CPU, which has no TF32",
    )
    require(
        not training.compile or training.device != "cpu",
        "training.compile",
        training.compile,
        "false on a CPU, where a step goes from event to event",
    )


@dataclass(frozen=True)
class DeployConfig:
    """How a trained network becomes integers."""

    weight_bits: WeightBits = 8
    """Width of the signed weight mantissas; of the readout's on hardware it is at least 4."""
    symmetric: bool = False
    """Without the most negative mantissa, which has no counterpart: with 2 bits ternary weights, -1, 0 and 1."""
    threshold: Literal["full", "half"] = "full"
    """Integer threshold. full: as trained. half: half the reset amount, so that rates are rounded to the nearest; with
    a threshold of the whole reset amount (IDE) they are rounded down. SPIDE trains with half already."""
    rounding: Literal["compensated", "nearest"] = "compensated"
    """How weights are rounded. compensated: one after the other, each making up for the errors of those before it in
    the current that the calibration samples' firing rates give; nearest: each one by itself."""
    exponents: WeightExponents = "all"
    """Which small weights get an exponent below 0, so that they keep their bits. all: those of spikes too, where
    several arrive in a step. input: of graded input alone; Lava's own Conv knows no exponent."""
    currents: ConstantCurrents = "pulsed"
    """What constant currents have where weights of spikes have an exponent below 0. pulsed: sixteenths of a weight
    unit, by a few units that arrive in one step of sixteen (fewer in short windows). whole: weight units alone."""
    time_steps: int = 0
    """Steps per sample on the hardware; 0: as trained."""
    calibration_samples: int = 256
    """Training samples for which weights are rounded, three quarters of all at most: the rates that `verify` expects
    are measured on others."""

    def __post_init__(self) -> None:
        require(self.weight_bits in range(2, 9), "weight_bits", self.weight_bits, "2 .. 8")
        require(self.threshold in ("full", "half"), "threshold", self.threshold, "full or half")
        rounding = ("compensated", "nearest")
        require(self.rounding in rounding, "rounding", self.rounding, "compensated or nearest")
        _check_exponents("exponents", self.exponents)
        require(self.currents in ("pulsed", "whole"), "currents", self.currents, "pulsed or whole")
        require(self.time_steps >= 0, "time_steps", self.time_steps, "at least 0 (0: as trained)")
        require(self.calibration_samples >= 1, "calibration_samples", self.calibration_samples, "at least 1")


def _check_exponents(name: str, value: str) -> None:
    require(value in ("all", "input"), name, value, "all or input")


def published_configs() -> dict[str, Path]:
    """Files of the configurations that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "published").rglob("*.toml"))}


def read_config(which: str | Path) -> TrainConfig:
    """Read a training configuration: one that comes with the package, by name, or any TOML file.

    Parameters
    ----------
    which : a name in `published_configs`, or a path (anything with a folder or an ending).

    Raises
    ------
    ConfigError : the file is missing or not TOML, has an unknown key, a wrong type, or values that contradict.
    """
    path = Path(which)
    if len(path.parts) == 1 and not path.suffix and not path.exists():
        known = published_configs()
        if path.name not in known:
            close = difflib.get_close_matches(path.name, known, n=1)
            hint = f' (did you mean "{close[0]}"?)' if close else ""
            raise ConfigError(f'config "{path.name}": no such name{hint}; allowed: a path, or {", ".join(known)}')
        path = known[path.name]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"config {path}: cannot be read ({error.strerror}); `fsnn configs` lists those that come with fsnn"
        raise ConfigError(message) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path}: not TOML: {error}") from None
    if _is_file_name(path.stem):  # a file that says no name has its own
        values = {"name": path.stem} | values
    try:
        return config_from_dict(values)
    except ValueError as error:
        raise ConfigError(f"config {path}: {error}") from None


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Training configuration from nested dictionaries, as TOML and JSON give them.

    Raises
    ------
    ConfigError : an unknown key, a wrong type or values that contradict.
    """
    return typing.cast(TrainConfig, _build(TrainConfig, values, where=""))


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Nested dictionaries that `config_from_dict` reads back; tuples become lists.

    Settings that older versions did not know are left out where they change nothing, so that files stay the same.
    """
    values = dataclasses.asdict(config)
    if not config.validation_samples:
        del values["validation_samples"]
    if config.data == DataConfig():
        del values["data"]
    for name, usual in (("neuron", "lif"), ("reset", "subtract")):
        if values["network"][name] == usual:
            del values["network"][name]
    for name in ("connections", "populations"):
        tables = [_told(table) for table in getattr(config.network, name)]
        del values["network"][name]
        values["network"] |= {name: tables} if tables else {}
    if not config.network.notation:
        del values["network"]["notation"]
    for name, default in _UNCHANGED.items():
        if values["training"][name] == default:
            del values["training"][name]
    for name in ("milestones", "time_steps_schedule"):
        if name in values["training"]:
            values["training"][name] = list(values["training"][name])
    return values


def _told(table: ConnectionConfig | PopulationConfig) -> dict[str, Any]:
    """What a table says beyond the defaults; tuples become lists."""
    said = {f.name: getattr(table, f.name) for f in dataclasses.fields(table) if getattr(table, f.name) != f.default}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def with_given(config: TrainConfig, *, own: Mapping[str, Any], training: Mapping[str, Any]) -> TrainConfig:
    """The configuration with those of these settings that are not None: its own, and those under [training].

    Raises
    ------
    ConfigError : values that are not allowed or contradict.
    """
    changed = dataclasses.replace(config.training, **{key: v for key, v in training.items() if v is not None})
    return dataclasses.replace(config, training=changed, **{key: v for key, v in own.items() if v is not None})


def changed_settings(old: TrainConfig, new: TrainConfig, *, free: Sequence[str]) -> list[str]:
    """Settings that differ, but for those under [training] that are `free` to; "key" or "table.key (old -> new)"."""
    before, after = config_to_dict(old), config_to_dict(new)
    tables = ("network", "training", "data")
    changed = [k for k in before | after if k not in tables and before.get(k) != after.get(k)]
    for table in tables:
        of_old, of_new = (values.get(table, {}) for values in (before, after))
        for key in of_old | of_new:
            value, then = of_old.get(key), of_new.get(key)
            if value != then and not (table == "training" and key in free):
                changed.append(f"{table}.{key} ({value!r} -> {then!r})")
    return changed


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    arguments = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f' (did you mean "{where}{close[0]}"?)' if close else ""
            raise ConfigError(f'unknown key "{name}"{hint}; allowed: {", ".join(sorted(hints))}')
        hint_type = hints[key]
        if dataclasses.is_dataclass(hint_type):
            if not isinstance(value, Mapping):
                raise ConfigError(f'key "{name}": found {value!r}; expected a table [{name}]')
            arguments[key] = _build(typing.cast(type, hint_type), value, f"{name}.")
        else:
            side = kind is ConnectionConfig and typing.get_origin(hint_type) is tuple and type(value) is int
            arguments[key] = _coerce([value] if side else value, hint_type, name)
    missing = [f.name for f in dataclasses.fields(kind) if not _has_default(f) and f.name not in arguments]
    if missing:
        others = ", ".join(sorted(set(hints) - set(missing)))
        raise ConfigError(f"{where[:-1]}: found no {', '.join(missing)}, which it must have; it may have {others}")
    return kind(**arguments)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """The value in its declared type; nothing is converted but an int where a float is due."""
    origin = typing.get_origin(hint)
    if origin in (Literal, Annotated):
        allowed = typing.get_args(hint) if origin is Literal else hint.__metadata__[0].choices
        if value not in allowed or isinstance(value, bool | float):
            raise ConfigError(f'key "{name}": found {value!r}; allowed: {", ".join(map(repr, allowed))}')
        return value
    if origin is tuple and dataclasses.is_dataclass(typing.get_args(hint)[0]):
        kind = typing.cast(type, typing.get_args(hint)[0])
        if not isinstance(value, list | tuple) or not all(isinstance(table, Mapping) for table in value):
            raise ConfigError(f'key "{name}": found {value!r}; expected tables [[{name}]]')
        return tuple(_build(kind, table, f"{name} {index}.") for index, table in enumerate(value, start=1))
    if origin is tuple:
        if not isinstance(value, list | tuple) or any(type(v) is not int for v in value):
            raise ConfigError(f'key "{name}": found {value!r}; expected a list of whole numbers, e.g. [3, 5]')
        return tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, types.UnionType) or type(value) is not hint:
        expected = "text in quotes" if hint is str else hint.__name__
        raise ConfigError(f'key "{name}": found {value!r} ({type(value).__name__}); expected {expected}')
    return value


def _positive(value: float) -> bool:
    return 0 < value < math.inf


def _is_file_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and all(c.isalnum() or c in "_-." for c in name)
