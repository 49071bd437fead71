"""Whatever can run a `HardwareNetwork`: the simulator, Lava, Loihi 2; the only package that names Lava.

A name is loaded when it is asked for, so that Lava need not be installed to use the simulator.
"""

from typing import TYPE_CHECKING

from fsnn_lava import lazy_names

if TYPE_CHECKING:
    from fsnn_lava.backends.lava.learning.job import (
        FEEDBACK as FEEDBACK,
        Learning as Learning,
        PlasticNetwork as PlasticNetwork,
        Synapses as Synapses,
        TrainingJob as TrainingJob,
        TrainingOutcome as TrainingOutcome,
    )
    from fsnn_lava.backends.lava.learning.runner import train_on_lava as train_on_lava
    from fsnn_lava.backends.lava.models.netx_runtime import netx_network as netx_network
    from fsnn_lava.backends.lava.runner import LavaRunner as LavaRunner, require_lava as require_lava
    from fsnn_lava.backends.registry import (
        BACKENDS as BACKENDS,
        Progress as Progress,
        Runner as Runner,
        Sink as Sink,
        get_backend as get_backend,
        inputs_of as inputs_of,
        require_arithmetic as require_arithmetic,
        run as run,
    )
    from fsnn_lava.backends.simulator import FloatSimulator as FloatSimulator, IntegerSimulator as IntegerSimulator
    from fsnn_lava.backends.simulator.plan import (
        BatchResult as BatchResult,
        BatchWeights as BatchWeights,
        Plan as Plan,
        PopulationPlan as PopulationPlan,
        SpikeConnection as SpikeConnection,
        make_plan as make_plan,
        overflow as overflow,
        returned_share as returned_share,
    )
    from fsnn_lava.backends.simulator.run import BatchRunner as BatchRunner, EngineName as EngineName
    from fsnn_lava.backends.spike_recording import SpikeRecorder as SpikeRecorder, load_recording as load_recording

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "lava.learning.job": "FEEDBACK Learning PlasticNetwork Synapses TrainingJob TrainingOutcome",
        "lava.learning.runner": "train_on_lava",
        "lava.models.netx_runtime": "netx_network",
        "lava.runner": "LavaRunner require_lava",
        "registry": "BACKENDS Progress Runner Sink get_backend inputs_of require_arithmetic run",
        "simulator": "FloatSimulator IntegerSimulator",
        "simulator.plan": "BatchResult BatchWeights Plan PopulationPlan SpikeConnection "
        "make_plan overflow returned_share",
        "simulator.run": "BatchRunner EngineName",
        "spike_recording": "SpikeRecorder load_recording",
    },
)
