"""Run an exported network on test samples: in the simulator, in Lava (float or bit-accurate) or on Loihi 2.

With --input FILE.. on your own inputs: images, recordings of events, .npy, .npz.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fsnn_lava.backends import BACKENDS, Runner, SpikeRecorder, get_backend
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.own_inputs import answers, show_answers
from fsnn_lava.cli.script import DeployedPlaces, chosen_run, command_line, show_next, working
from fsnn_lava.conversion import NETWORK_FILES, input_facts, load_deployed, samples_to_test
from fsnn_lava.datasets import Samples, read_inputs, time_first
from fsnn_lava.errors import ConfigError, IncompleteRunError, counted
from fsnn_lava.hardware import HardwareNetwork, RunResult, accuracy

console = Console()
if TYPE_CHECKING:
    Backend = str
else:
    Backend = tyro.extras.literal_type_from_choices(BACKENDS)
LAVA_SAMPLES = 100
"""Test samples on Lava and Loihi, if no number is given."""


@dataclass(frozen=True)
class Arguments(DeployedPlaces):
    """Run an exported network on test samples."""

    backend: Backend = "lava-fixed"
    """Where to run; the backends are listed above."""
    samples: int | None = None
    """How many test samples, evenly spread over the test set; default: 100 on Lava and Loihi, all in the simulator."""
    engine: Literal["auto", "event", "dense"] = "auto"
    """simulators: event: each spike adds its weights; dense: products with all weights; auto: by the firing rate of the
    first samples. The same spikes."""
    stock_models: bool = False
    """lava-fixed: Lava's own process models instead of our faster ones. The same spikes."""
    readout: Literal["host", "lava"] = "host"
    """lava-fixed: host: logits from the firing rates; lava: from non-spiking integrators in the graph."""
    input: tuple[Path, ...] = ()
    """Your own inputs instead of test samples: images of the network's height and width, recordings for a network that
    was trained on such, or arrays, of one input or of several, in files of NumPy's (.npy, .npz): whole numbers are
    codes, floats the normalised values of the training."""
    json: bool = False
    """With --input: print JSON, and nothing else."""
    record: Path | None = None
    """Keep every population's spikes of every step in this HDF5 file, whose form is that of
    fsnn_lava.backends.spike_recording."""


def main(argv: list[str]) -> int:
    """Run a network and return the exit status, 0."""
    arguments = read_options(Arguments, argv, command="run", description=f"{__doc__}\n\nBackends: {BACKENDS.help()}.")
    if arguments.json and not arguments.input:
        raise ConfigError("--json: found without --input; allowed: with it")
    screen = Console(quiet=True) if arguments.json else console
    deployed = load_deployed(chosen_run(screen, arguments, NETWORK_FILES["integer"]))
    values = {name: getattr(arguments, name) for name in ("engine", "stock_models", "readout")}
    settings = {name: value for name, value in values.items() if value != getattr(Arguments, name)}
    from fsnn_lava import training  # imports torch, which --help does not need

    best = deployed.folder / training.BEST
    if best.exists() and deployed.is_outdated(training.load_checkpoint(best)):
        export = f"{command_line('export')} --to lava --run {deployed.folder}"
        screen.print(f"warning: was trained further after its export; to export again: {export}", soft_wrap=True)
    backend = get_backend(arguments.backend, settings)
    network = deployed.network("integer" if backend.arithmetic is None else backend.arithmetic)
    if arguments.input:
        run_inputs(arguments, screen, backend, network)
        return 0
    most = None if arguments.backend.startswith("simulator") else LAVA_SAMPLES
    samples = samples_to_test(
        network, data_dir=arguments.data_dir, dataset=arguments.dataset, count=arguments.samples, most=most
    )
    started = time.monotonic()
    names = [p.name for p in network.populations] if arguments.record else []
    try:
        with ExitStack() as stack:
            recorder = None
            if arguments.record:
                recorder = SpikeRecorder(arguments.record, network, record=names, samples=len(samples))
                stack.enter_context(recorder)
            say = stack.enter_context(working(console, arguments.backend))
            result = backend.run(
                network,
                time_first(samples.codes),
                record=names,
                sink=recorder.add if recorder else None,
                progress=lambda done, total: say(f"{arguments.backend}: {done} of {counted(total, 'sample')}"),
            )
    except IncompleteRunError as error:
        if isinstance(error.result, RunResult):
            show(error.result, samples[: error.samples], time.monotonic() - started)
        raise
    show(result, samples, time.monotonic() - started)
    if arguments.record:
        console.print(f"spikes: {escape(str(arguments.record))}", soft_wrap=True)
    show_next(console, "verify", f"--run {deployed.folder}", data_dir=arguments.data_dir)
    return 0


def run_inputs(arguments: Arguments, screen: Console, backend: Runner, network: HardwareNetwork) -> None:
    """Classify the inputs that --input names, and print what came of each.

    Raises
    ------
    InputError, DatasetError : if a file is no input of the network.
    """
    if arguments.samples is not None or arguments.record is not None:
        raise ConfigError("--input: found with --samples or --record; allowed: without them")
    coding, classes, settings = input_facts(network)
    frames = (network.time_steps,) if network.input.kind == "event" else ()
    codes, names = read_inputs(arguments.input, coding, shape=(*frames, *network.input.shape), settings=settings)
    with working(screen, arguments.backend):
        result = backend.run(network, time_first(codes), record=[network.readout.source])
    found = answers(network, result, names, classes)
    show_answers(console, found, time_steps=network.time_steps, as_json=arguments.json)


def show(result: RunResult, samples: Samples, seconds: float) -> None:
    """Show a table of firing per population, and the accuracy."""
    table = Table("population", "neurons", "spikes per neuron and step", "spikes per sample")
    for name, counts in result.spike_counts.items():
        per_sample = counts.reshape(len(counts), -1).sum(axis=1).mean()
        neurons = counts[0].size
        table.add_row(name, str(neurons), f"{per_sample / neurons / result.time_steps:.4f}", f"{per_sample:.1f}")
    count = counted(len(samples), "sample")
    console.print(f"{result.backend}: {count}, T = {result.time_steps}, {seconds:.2f} s in all")
    console.print(table)
    which = samples.chosen or f"{len(samples)}, the first that were to run"
    console.print(f"accuracy {accuracy(result, samples.labels):.2%} on test samples: {which}")
