"""From a `TrainingJob` to connected Lava processes: one per population, one per connection, a source and a readout.

::

    source --x--> F^1 --I--> population 1 --s--> F^2 --I--> ... population N --s--> readout <--label-- source
                   ^--p-----'      ^---------q----'  ^--p------'    ^   ^-----------e-----'
    feedback: s of population N -> W -> I of population 1;  p of population 1 -> W (transposed) -> q of population N
"""

from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.process import AbstractProcess

from fsnn_lava.backends.lava.learning.job import FEEDBACK, READOUT, TrainingJob
from fsnn_lava.backends.lava.learning.memory import TrainingMemory, processes_of
from fsnn_lava.backends.lava.learning.neurons import (
    CouplePopulation,
    CouplePopulationModel,
    SampleSource,
    SampleSourceModel,
)
from fsnn_lava.backends.lava.learning.synapses import (
    LearningReadout,
    LearningReadoutModel,
    PlasticConnection,
    PlasticConnectionModel,
)
from fsnn_lava.hardware import Array

_MODELS: dict[type[AbstractProcess], type[PyLoihiProcessModel]] = {
    SampleSource: SampleSourceModel,
    CouplePopulation: CouplePopulationModel,
    PlasticConnection: PlasticConnectionModel,
    LearningReadout: LearningReadoutModel,
}


class TrainingGraph:
    """The processes of a job.

    Attributes
    ----------
    root : any of them; Lava finds the others.
    models : the model of each.
    """

    def __init__(self, job: TrainingJob, memory: TrainingMemory) -> None:
        self._job, self._memory = job, memory
        self.models: dict[AbstractProcess, type[PyLoihiProcessModel]] = {}
        last = len(job.network.sizes)
        source = SampleSource(job=job, ticks=self._ticks())
        self._add(source)
        self._populations = [self._population(index) for index in range(1, last + 1)]
        readout = self._readout(last)
        source.label_out.connect(readout.label_in)
        for index in range(last):
            connection = self._connection(f"feedforward.{index}", index, index + 1)
            (source.x_out if index == 0 else self._populations[index - 1].s_out).connect(connection.s_in)
        if job.network.feedback is not None:
            connection = self._connection(FEEDBACK, last, 1)
            self._populations[-1].s_out.connect(connection.s_in)
        assert len(self.models) == processes_of(job)
        self.root: AbstractProcess = source

    def _ticks(self) -> Array:
        """The next process's clock."""
        used = len(self.models)
        return self._memory.clocks[used : used + 1]

    def _add(self, process: AbstractProcess) -> None:
        self.models[process] = _MODELS[type(process)]

    def _population(self, index: int) -> CouplePopulation:
        memory = self._memory
        population = CouplePopulation(
            index=index,
            job=self._job,
            activity=(memory.mean_spikes[:, index - 1], memory.mean_spikes_back[:, index - 1]),
            spikes=(memory.spikes[index - 1], memory.spikes_back[index - 1]),
            ticks=self._ticks(),
        )
        self._add(population)
        return population

    def _readout(self, last: int) -> LearningReadout:
        readout = LearningReadout(
            job=self._job,
            record=self._memory.synapses[READOUT],
            losses=self._memory.losses,
            predictions=self._memory.predictions,
            ticks=self._ticks(),
        )
        self._add(readout)
        self._populations[last - 1].s_out.connect(readout.s_in)
        readout.e_out.connect(self._populations[last - 1].q_in)
        return readout

    def _connection(self, name: str, source: int, target: int) -> PlasticConnection:
        """A connection, joined to its target on both ways and to its source backwards; forwards is the caller's."""
        connection = PlasticConnection(
            name=name,
            source=source,
            target=target,
            job=self._job,
            record=self._memory.synapses[name],
            ticks=self._ticks(),
        )
        self._add(connection)
        connection.a_out.connect(self._populations[target - 1].a_in)
        self._populations[target - 1].p_out.connect(connection.p_in)
        if source > 0:
            connection.q_out.connect(self._populations[source - 1].q_in)
        return connection
