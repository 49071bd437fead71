"""From a `HardwareNetwork` to connected Lava processes.

One population is a stock `LIFReset` that integrates in its current ``u`` (its voltage ``v`` is memoryless, dv = 4096,
and equals ``u``), and a diagonal connection from the population to itself which subtracts the reset synapse one step
after a spike. Where a spike resets to zero, the population is a `LIFReset` alone, used as Lava means it: it integrates
in ``v``, which it sets to 0 itself, and ``u`` is the synaptic current. Constant currents come from one neuron that
fires in every step.

**The clock.** Every sample takes ``sample_steps`` steps. Global step g of sample b is Lava's step

    1 + b * sample_steps + g.

What is sent at g over a connection of delay d arrives at g + d: a Lava connection takes one step; the d - 1 before it
are spent on the way to a relay neuron, which repeats the spike; for inputs, the source starts d - 1 steps later. So a
population's window [start, start + T) needs no mechanism of its own: nothing arrives before it, and what the
population does after it reaches no window of the same sample. Before global step 0 of every sample, all potentials
and all spikes in flight are zero.

**Neurons** are flat everywhere, in Lava's order (`lava_format`); only at a Conv are they given their three axes.
"""

import importlib
from dataclasses import dataclass, field
from typing import TypeVar

from lava.magma.compiler.compiler_graphs import find_processes
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg, RunConfig
from lava.proc.lif.models import PyLifModelBitAcc, PyLifModelFloat, PyLifResetModelBitAcc, PyLifResetModelFloat
from lava.proc.lif.process import LIF, LIFReset

from fsnn_lava.backends.lava import stock_processes as processes
from fsnn_lava.backends.lava.chip_limits import lava_delay
from fsnn_lava.backends.lava.models.fast_models import CONNECTION_MODELS, FAST_MODELS, warm_up
from fsnn_lava.backends.lava.models.host_processes import (
    HostInput,
    HostInputFixed,
    HostInputFloat,
    HostReader,
    HostReaderFixed,
    HostRecorder,
    HostRecorderFixed,
    HostRecorderFloat,
)
from fsnn_lava.backends.lava.sample_ring import GraphJob, SampleRing
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Arithmetic,
    Array,
    Connection,
    HardwareNetwork,
    IntegerNeuron,
    Population,
)

_Process = TypeVar("_Process", bound=AbstractProcess)

_MODELS: dict[tuple[type[AbstractProcess], Arithmetic], type[PyLoihiProcessModel]] = {
    (HostInput, "integer"): HostInputFixed,
    (HostInput, "float"): HostInputFloat,
    (HostReader, "integer"): HostReaderFixed,
    (HostRecorder, "integer"): HostRecorderFixed,
    (HostRecorder, "float"): HostRecorderFloat,
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
    """

    root: AbstractProcess
    models: dict[AbstractProcess, type[PyLoihiProcessModel]] = field(default_factory=dict)

    def run_config(self, job: GraphJob) -> RunConfig:
        """Lava's run configuration for the job's device and arithmetic."""
        if job.device == "loihi2":
            return Loihi2HwCfg(select_sub_proc_model=True)
        select_tag = "fixed_pt" if job.networks[0].arithmetic == "integer" else "floating_pt"
        return Loihi2SimCfg(select_tag=select_tag, exception_proc_model_map=self.models)


def build_graph(job: GraphJob, ring: SampleRing) -> Graph:
    """The graph of all networks of a job, whose samples come and go through the ring."""
    if not job.stock_models:
        warm_up()
    builder = _Builder(job, ring)
    for index, network in enumerate(job.networks):
        builder.add_network(index, network)
    return Graph(builder.joined(), builder.models)


class _Builder:
    """Adds networks to a graph."""

    def __init__(self, job: GraphJob, ring: SampleRing) -> None:
        self.job = job
        self.ring = ring
        self.arithmetic = job.networks[0].arithmetic
        self.kinds = _MODELS if job.stock_models else _MODELS | FAST_MODELS
        self.models: dict[AbstractProcess, type[PyLoihiProcessModel]] = {}
        self.recorders: list[HostRecorder] = []
        self.readers = 0
        self._ports: dict[tuple[int, str, int], OutPort] = {}
        """(network's index, source, steps) -> its spikes, so many steps late. Sources of a period have names of it."""

    def add_network(self, index: int, network: HardwareNetwork) -> None:
        """Populations with their recorders, then the connections between them."""
        targets = {p.name: self._add_population(index, network, p) for p in network.populations}
        for connection in network.connections:
            process = self._register(processes.synapses(network, connection, stock_models=self.job.stock_models))
            delay = lava_delay(network, connection)
            if connection.source == INPUT:
                port = self._input(index, network, delay)
            else:
                size = 1 if connection.source == ALWAYS_ON else network.population(connection.source).size
                port = self._late(index, connection, size=size, steps=delay - 1)
            _connect(port, process.s_in)
            _connect(process.a_out, targets[connection.target])
        if self.job.readout == "lava":
            self._add_integrators(index, network)

    def joined(self) -> AbstractProcess:
        """A process of the graph, once all of its parts are joined: Lava runs what is connected."""
        root = self.recorders[0]
        for recorder in self.recorders[1:]:
            if recorder not in find_processes(root):
                root.joint_out.connect(recorder.joint_in)
        return root

    def _register(self, process: _Process) -> _Process:
        """The process, with its model noted, and told how long a sample takes."""
        if processes.has_buffer(process):
            process.proc_params["sample_steps"] = self.job.sample_steps
        if self.job.device == "cpu":
            self.models[process] = self.kinds[type(process), self.arithmetic]
        return process

    def _input(self, index: int, network: HardwareNetwork, delay: int) -> OutPort:
        """The network's input for connections of that delay; Loihi 2 needs an adapter between host and chip."""
        key = (index, INPUT, delay - 1)
        if key not in self._ports:
            source = HostInput(
                frames=self.ring.inputs[index],
                time_steps=network.time_steps,
                start=delay - 1,
                sample_steps=self.job.sample_steps,
            )
            port = self._register(source).s_out
            if self.job.device == "loihi2":
                adapter = importlib.import_module("lava.proc.embedded_io.spike").PyToNxAdapter(
                    shape=port.shape, num_message_bits=processes.MESSAGE_BITS
                )
                port.connect(adapter.inp)
                port = adapter.out
            self._ports[key] = port
        return self._ports[key]

    def _late(self, index: int, connection: Connection, *, size: int, steps: int) -> OutPort:
        """Port that sends what the connection's source sends, so many steps later."""
        always_on = connection.source == ALWAYS_ON
        first = (-1 if always_on else index, connection.source, 0)  # one always-on neuron serves all networks
        if always_on and first not in self._ports:
            self._ports[first] = self._register(processes.always_on(self.arithmetic)).s_out
        if connection.period > 1:
            first = self._clock_of(connection.period, first)
        late = (*first[:2], steps)
        if late not in self._ports:
            line = self._register(processes.delay_line(size, steps, self.arithmetic))
            relay = self._register(processes.relay(size, self.arithmetic))
            self._ports[first].connect(line.s_in)
            line.a_out.connect(relay.a_in)
            self._ports[late] = relay.s_out
        return self._ports[late]

    def _clock_of(self, period: int, always_on: tuple[int, str, int]) -> tuple[int, str, int]:
        """Key of the port of a neuron that fires in one step of so many; one serves all networks."""
        key = (-1, f"{ALWAYS_ON}, every {period}", 0)
        if key not in self._ports:
            neuron, inhibition, current = processes.clock(period, sample_steps=self.job.sample_steps)
            self._register(neuron).s_out.connect(self._register(inhibition).s_in)
            inhibition.a_out.connect(neuron.a_in)
            self._ports[always_on].connect(self._register(current).s_in)
            current.a_out.connect(neuron.a_in)
            self._ports[key] = neuron.s_out
        return key

    def _add_population(self, index: int, network: HardwareNetwork, population: Population) -> InPort:
        """Add a population; return its port for currents, its spikes come out of ``_ports``."""
        neuron = processes.population(population.size, population.neuron, sample_steps=self.job.sample_steps)
        self._register(neuron)
        if population.neuron.reset == "subtract":
            inhibition = processes.inhibition(population.size, population.neuron)
            neuron.s_out.connect(self._register(inhibition).s_in)
            inhibition.a_out.connect(neuron.a_in)
        self._ports[index, population.name, 0] = neuron.s_out
        recorder = HostRecorder(
            spikes=self.ring.spikes[index, population.name],
            start=population.start,
            sample_steps=self.job.sample_steps,
            samples=self.job.total,
            clock=self._clock(),
            ready=self.ring.ready,
        )
        self.recorders.append(self._register(recorder))
        self._to_host(neuron.s_out).connect(recorder.a_in)
        return neuron.a_in

    def _add_integrators(self, index: int, network: HardwareNetwork) -> None:
        """The readout's neurons, and who reads them. They keep Lava's own model: somebody looks into it."""
        source = network.population(network.readout.source)
        assert isinstance(source.neuron, IntegerNeuron)
        synapses = self._register(processes.readout_synapses(network))
        neurons = processes.integrators(
            synapses.a_out.shape[0], decay=source.neuron.decay, sample_steps=self.job.sample_steps
        )
        self.models |= {neurons: PyLifResetModelBitAcc} if self.job.device == "cpu" else {}
        reader = HostReader(
            potentials=self.ring.potentials[index],
            step=self.job.read_step(network),
            sample_steps=self.job.sample_steps,
            clock=self._clock(),
        )
        self.readers += 1
        self._ports[index, source.name, 0].connect(synapses.s_in)
        synapses.a_out.connect(neurons.a_in)
        self._register(reader).u.connect_var(neurons.u)

    def _clock(self) -> Array:
        """The next recorder's clock."""
        used = len(self.recorders) + self.readers
        return self.ring.clocks[used : used + 1]

    def _to_host(self, port: OutPort) -> OutPort:
        if self.job.device == "cpu":
            return port
        adapter = importlib.import_module("lava.proc.embedded_io.spike").NxToPyAdapter(shape=port.shape)
        port.connect(adapter.inp)
        return adapter.out


def _connect(source: OutPort, target: InPort) -> None:
    """Connect ports of one size, whatever their shapes."""
    (source if source.shape == target.shape else source.reshape(target.shape)).connect(target)
