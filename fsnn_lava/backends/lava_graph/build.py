"""From a `HardwareNetwork` to connected Lava processes.

One population is a stock `LIFReset` that integrates in its current ``u`` (its voltage ``v`` is memoryless, dv = 4096,
and equals ``u``), and a diagonal connection from the population to itself which subtracts the reset synapse one step
after a spike. Constant currents come from one neuron that fires in every step.

**The clock.** Every sample takes ``sample_steps`` steps. Global step g of sample b is Lava's step

    1 + b * sample_steps + g.

What is sent at g over a connection of delay d arrives at g + d: a Lava connection takes one step, `DelayDense` adds
d - 1; for inputs, the source starts d - 1 steps later. So a population's window [start, start + T) needs no mechanism
of its own: nothing arrives before it, and what the population does after it reaches no window of the same sample.
Before global step 0 of every sample, all potentials and all spikes in flight are zero.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg, RunConfig
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.lif.models import PyLifModelBitAcc, PyLifModelFloat, PyLifResetModelBitAcc, PyLifResetModelFloat
from lava.proc.lif.process import LIF, LIFReset
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix, diags

from fsnn_lava.backends.hardware import lava_delay
from fsnn_lava.backends.lava_graph.connections import CONNECTION_MODELS
from fsnn_lava.backends.lava_graph.host import (
    HostInput,
    HostInputFixed,
    HostInputFloat,
    HostRecorder,
    HostRecorderFixed,
    HostRecorderFloat,
    InputBlock,
    shared_zeros,
)
from fsnn_lava.backends.lava_graph.job import GraphJob
from fsnn_lava.backends.lava_graph.soft_reset import SoftResetFixed, SoftResetFloat, SoftResetLIF
from fsnn_lava.ir import (
    ALWAYS_ON,
    INPUT,
    Arithmetic,
    Array,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Population,
)

_Process = TypeVar("_Process", bound=AbstractProcess)

MESSAGE_BITS = 8
"""Width of a graded input spike; 0 says binary spikes."""
SPARSE_SHARE = 0.1
"""A matrix with at most this share of weights that are not zero becomes a Sparse connection."""

_MODELS: dict[tuple[type[AbstractProcess], Arithmetic], type[PyLoihiProcessModel]] = {
    (HostInput, "integer"): HostInputFixed,
    (HostInput, "float"): HostInputFloat,
    (HostRecorder, "integer"): HostRecorderFixed,
    (HostRecorder, "float"): HostRecorderFloat,
    (SoftResetLIF, "integer"): SoftResetFixed,
    (SoftResetLIF, "float"): SoftResetFloat,
    (LIF, "integer"): PyLifModelBitAcc,
    (LIF, "float"): PyLifModelFloat,
    (LIFReset, "integer"): PyLifResetModelBitAcc,
    (LIFReset, "float"): PyLifResetModelFloat,
    **CONNECTION_MODELS,
}
"""The model of each process on the CPU. Named here because Lava's search executes every file beside a Process anew."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A built graph, not yet compiled.

    Parameters
    ----------
    root : any of its processes; Lava finds the others.
    models : the model of each process on the CPU; empty for the chip, where Lava chooses.
    memory : (network's index, population) -> (steps, N) uint8, shared with the recorders.
    clock : (1,) number of steps that are finished.
    """

    root: AbstractProcess
    models: dict[AbstractProcess, type[PyLoihiProcessModel]] = field(default_factory=dict)
    memory: dict[tuple[int, str], Array] = field(default_factory=dict)
    clock: Array = field(default_factory=lambda: shared_zeros((1,), np.int64))

    def run_config(self, job: GraphJob) -> RunConfig:
        """Lava's run configuration for the job's device and arithmetic."""
        if job.device == "loihi2":
            return Loihi2HwCfg(select_sub_proc_model=True)
        select_tag = "fixed_pt" if job.networks[0].arithmetic == "integer" else "floating_pt"
        return Loihi2SimCfg(select_tag=select_tag, exception_proc_model_map=self.models)


def build_graph(job: GraphJob) -> Graph:
    """The graph of all networks of a job; they share the source of the inputs, which connects them."""
    columns, blocks = _input_blocks(job)
    source = HostInput(blocks=blocks, sample_steps=job.sample_steps)
    builder = _Builder(job, Graph(root=source), source_size=source.s_out.shape[0])
    builder.register(source)
    inputs = builder.to_device(source.s_out)
    for index, network in enumerate(job.networks):
        builder.add_network(index, network, inputs=inputs, columns=columns)
    return builder.graph


def _input_blocks(job: GraphJob) -> tuple[dict[tuple[int, int], int], tuple[InputBlock, ...]]:
    """Where (network, delay) begins in what the source sends, and its contents."""
    columns: dict[tuple[int, int], int] = {}
    blocks: list[InputBlock] = []
    first = 0
    for index, (network, inputs) in enumerate(zip(job.networks, job.inputs, strict=True)):
        frames = inputs if network.input.kind == "event" else inputs[None]
        frames = frames.reshape(*frames.shape[:2], network.input.size)
        for delay in sorted({c.delay for c in network.connections if c.source == INPUT}):
            columns[index, delay] = first
            blocks.append(InputBlock(first, frames, network.time_steps, delay - 1))
            first += network.input.size
    if not blocks:  # no network listens to its input, but the source joins them
        blocks.append(InputBlock(0, np.zeros((1, 1, 1), dtype=np.int32), 1, 0))
    return columns, tuple(blocks)


class _Builder:
    """Adds networks to a graph."""

    def __init__(self, job: GraphJob, graph: Graph, *, source_size: int) -> None:
        self.job = job
        self.graph = graph
        self.source_size = source_size
        self.integer = job.networks[0].arithmetic == "integer"
        self._always_on: LIF | None = None

    def add_network(
        self, index: int, network: HardwareNetwork, *, inputs: OutPort, columns: dict[tuple[int, int], int]
    ) -> None:
        """Populations, their recorders, then the connections between them."""
        ports = {p.name: self._add_population(index, p) for p in network.populations}
        for connection in network.connections:
            weight = connection.weight
            if connection.source == INPUT:
                source = inputs
                first = columns[index, connection.delay]
                weight = np.zeros((weight.shape[0], self.source_size), dtype=weight.dtype)
                weight[:, first : first + network.input.size] = connection.weight
            else:
                source = self._always_on_port() if connection.source == ALWAYS_ON else ports[connection.source][1]
            process = self._connection(network, connection, weight)
            source.connect(process.s_in)
            process.a_out.connect(ports[connection.target][0])
        if all(c.source != INPUT for c in network.connections):  # Lava runs what is connected
            target = network.populations[0]
            silent = self.register(
                Dense(weights=np.zeros((target.size, self.source_size), int), sample_steps=self.job.sample_steps)
            )
            inputs.connect(silent.s_in)
            silent.a_out.connect(ports[target.name][0])

    def register(self, process: _Process) -> _Process:
        """The process, with its model noted."""
        if self.job.device == "cpu":
            self.graph.models[process] = _MODELS[type(process), self.job.networks[0].arithmetic]
        return process

    def to_device(self, port: OutPort) -> OutPort:
        """The port as the device sees it; Loihi 2 needs an adapter between host and chip."""
        if self.job.device == "cpu":
            return port
        adapter = importlib.import_module("lava.proc.embedded_io.spike").PyToNxAdapter(
            shape=port.shape, num_message_bits=MESSAGE_BITS
        )
        port.connect(adapter.inp)
        return adapter.out

    def _to_host(self, port: OutPort) -> OutPort:
        if self.job.device == "cpu":
            return port
        adapter = importlib.import_module("lava.proc.embedded_io.spike").NxToPyAdapter(shape=port.shape)
        port.connect(adapter.inp)
        return adapter.out

    def _add_population(self, index: int, population: Population) -> tuple[InPort, OutPort]:
        """Where currents go in and spikes come out."""
        if self.job.neuron == "soft_reset":
            neuron = SoftResetLIF(size=population.size, neuron=population.neuron, sample_steps=self.job.sample_steps)
            self.register(neuron)
        else:
            neuron = self._stock_population(population)
        memory = shared_zeros((self.job.steps, population.size), np.uint8)
        self.graph.memory[index, population.name] = memory
        recorder = self.register(HostRecorder(memory=memory, clock=self.graph.clock))
        self._to_host(neuron.s_out).connect(recorder.a_in)
        return neuron.a_in, neuron.s_out

    def _stock_population(self, population: Population) -> LIFReset:
        """A LIF that integrates in ``u``, and its self-inhibition. Lava fires above ``vth``, we at the threshold."""
        parameters = population.neuron
        du: float
        vth: float
        if isinstance(parameters, IntegerNeuron):
            du, dv, vth = parameters.decay - 1, 4096, 2 * parameters.v_threshold - 1
        else:
            du, dv, vth = 1 - parameters.leak, 1, np.nextafter(parameters.v_threshold, -np.inf)
        period = self.job.sample_steps  # the reset comes at Lava's steps 1, 1 + period, 1 + 2 period, ...
        neuron = LIFReset(
            shape=(population.size,), du=du, dv=dv, vth=vth, reset_interval=period, reset_offset=1 % period
        )
        self.register(neuron)
        inhibition = self.register(Sparse(**self._inhibition(population.size, parameters)))
        neuron.s_out.connect(inhibition.s_in)
        inhibition.a_out.connect(neuron.a_in)
        return neuron

    def _inhibition(self, size: int, neuron: IntegerNeuron | FloatNeuron) -> dict[str, object]:
        """Arguments of the diagonal connection that subtracts the reset. Float: leak * reset_amount (Eq. 2)."""
        if isinstance(neuron, FloatNeuron):
            weight = diags([-neuron.leak * neuron.reset_amount], shape=(size, size), format="csr")
            return {"weights": weight, "sample_steps": self.job.sample_steps}
        weight = diags([-neuron.reset_mantissa], shape=(size, size), format="csr", dtype=np.int32)
        return {
            "weights": weight,
            "weight_exp": neuron.reset_exponent + 1,
            "num_weight_bits": 8,
            "sign_mode": SignMode.INHIBITORY,
            "sample_steps": self.job.sample_steps,
        }

    def _connection(self, network: HardwareNetwork, connection: Connection, weight: Array) -> AbstractProcess:
        """A connection process. Integer mantissas are doubled: with mixed signs Lava keeps even weights only."""
        graded = connection.source == INPUT and network.input.kind == "graded"
        arguments: dict[str, object] = {
            "weights": 2 * weight if self.integer else weight,
            "num_message_bits": MESSAGE_BITS if graded else 0,
            "sample_steps": self.job.sample_steps,
        }
        if self.integer:
            exponent = connection.weight_exponent
            arguments |= {"weight_exp": exponent, "num_weight_bits": 8, "sign_mode": SignMode.MIXED}
        delay = 1 if connection.source == INPUT else lava_delay(network, connection)
        if delay > 1:
            delays = np.full(weight.shape, delay - 1, dtype=int)
            return self.register(DelayDense(delays=delays, **arguments))
        if 0 < np.count_nonzero(weight) <= SPARSE_SHARE * weight.size:
            return self.register(Sparse(**arguments | {"weights": csr_matrix(arguments["weights"])}))
        return self.register(Dense(**arguments))

    def _always_on_port(self) -> OutPort:
        """Output of the neuron that fires in every step; memoryless, with a bias above its threshold."""
        if self._always_on is None:
            if self.integer:
                self._always_on = LIF(shape=(1,), du=4095, dv=4096, vth=1, bias_mant=128)
            else:
                self._always_on = LIF(shape=(1,), du=1, dv=1, vth=0.5, bias_mant=1)
            self.register(self._always_on)
        return self._always_on.s_out
