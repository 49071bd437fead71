"""Export a trained network, or a NIR graph: lower it, quantize it, prove its 24-bit state, write both networks.

Writes network-float.h5 and network-integer.h5 into the run's folder (their format: docs/network-format.md), a report of
what rounding did, how large the network is and how much it works (export.md, export.json), the record that `verify`
holds the networks against (export-record.npz), and what --to asks for. What an earlier export of other numbers left in
the folder, as report.md, is renamed to report-of-earlier-export.md and the like.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import RunPlaces, chosen_run, dataset_of, show_next, working, write_report
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion import (
    PlainForm,
    calibration_codes,
    import_nir,
    lower,
    network_hashes,
    plain_differences,
    set_aside,
    write_export,
)
from fsnn_lava.datasets import Dataset, load_dataset, time_first
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import new_run_folder
from fsnn_lava.hardware import HardwareNetwork
from fsnn_lava.quantization import quantize
from fsnn_lava.training import BEST, load_checkpoint
from fsnn_lava.verification import LOIHI_1, RATE_SAMPLES, RECORD, EnergyModel, record_export, report_export, save_record

console = Console()


@dataclass(frozen=True)
class Arguments(RunPlaces):
    """Export a trained network, or a NIR graph."""

    to: Literal["lava", "netx", "nir"] = "lava"
    """lava: the two network files, which `fsnn run` runs on Lava. netx: also network.net for lava-dl's
    netx.hdf5.Network. nir: also both networks as NIR graphs, network-float.nir and network-integer.nir, in the form of
    --nir-neurons."""
    nir_neurons: Literal["exact", "plain"] = "exact"
    """With --to nir. exact: this package's law in several nodes a population, which no other tool reads yet. plain: one
    IF or LIF node a population, for Norse, Sinabs, snnTorch and nirtorch. Most of them reset to zero and not by
    subtraction, and all deliver feedback one step late, whatever its delay here; docs/nir.md."""
    nir_reader: Literal["nir", "sinabs", "snntorch"] = "nir"
    """With --nir-neurons plain: whose time constants. nir: NIR's equations, for Norse and nirtorch, for Sinabs where no
    neuron leaks, for snnTorch where all do. sinabs, snntorch: theirs, for other networks."""
    from_nir: Path | None = None
    """Export this NIR graph, in a new run folder of its name, instead of a training; needs --dataset, for whose
    normalised values it was made."""
    time_step: float | None = None
    """Length of one step in the graph's unit of time, e.g. 1e-4 where its time constants are in seconds. With
    --from-nir: in the graph that is read, 1 unless given. With --nir-neurons plain: in those that are written, unless
    given 1e-4 where neurons leak, which snnTorch assumes, else 1."""
    nir_reset: Literal["zero", "subtract", "unleaked"] | None = None
    """With --from-nir: what a spike does in the graph's neurons. zero: the potential becomes 0. subtract: less
    v_threshold - v_reset, before the leak. unleaked: the same after it (snnTorch). Default: zero where the graph has
    v_reset, else subtract; which it is, is printed."""
    energy: EnergyModel = LOIHI_1
    """What a synaptic operation costs, for the report; a figure of your own needs its source."""
    settings: Annotated[DeployConfig, tyro.conf.arg(name="")] = field(default_factory=DeployConfig)


def main(argv: list[str]) -> int:
    """Export a network and return the exit status, 0."""
    arguments = read_options(Arguments, argv, command="export", description=__doc__)
    if arguments.from_nir and (arguments.dataset is None or arguments.run):
        raise ConfigError("--from-nir FILE needs --dataset NAME, and goes without --run")
    plain = plain_form(arguments)
    if arguments.time_step is not None and not arguments.from_nir and plain is None:
        raise ConfigError("--time-step: found without --from-nir or --nir-neurons plain; allowed: with one of them")
    if arguments.nir_reset is not None and not arguments.from_nir:
        raise ConfigError("--nir-reset: found without --from-nir; allowed: with it")
    run = None if arguments.from_nir else chosen_run(console, arguments, BEST)
    try:
        with working(console, "reading the network and its samples") as progress:
            floating, dataset = imported(arguments) if run is None else lowered(arguments, run)
            fitted = arguments.settings.calibration_samples
            calibration = calibration_codes(dataset, count=fitted)
            # The default stands for the bits that a network was trained in; eight that are asked for mean eight.
            asked = any(option.replace("_", "-").startswith("--weight-bits") for option in argv)
            bits = arguments.settings.weight_bits if asked else None
            integer, quantization = quantize(
                floating, calibration, config=arguments.settings, bits=bits, progress=progress
            )
            progress("counting spikes and synaptic operations")
            report = report_export(integer, calibration, quantization=quantization, energy=arguments.energy)
            progress("measuring how far rounding moves each neuron's rate")
            others = dataset.train.to_measure(RATE_SAMPLES, fitted=fitted)
            record = record_export(floating, integer, time_first(others.codes))
    except KeyboardInterrupt:
        console.print("nothing was written; an earlier export is as it was", soft_wrap=True)
        raise
    folder = run or new_run_folder(arguments.runs, floating.name)
    earlier = network_hashes(folder) if (folder / RECORD).exists() else {}  # an interrupted export leaves no record
    written = []
    for path in write_export(arguments.to, folder, floating=floating, integer=integer, plain=plain):
        (folder / RECORD).unlink(missing_ok=True)  # of an earlier export, not of the files that are written now
        written.append(path)
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    if network_hashes(folder) != earlier:
        for old, new in set_aside(folder, written=written).items():
            console.print(f"{old} is of an earlier export: renamed to {new}", soft_wrap=True)
    save_record(record, folder / RECORD)
    write_report(console, folder, "export", markdown=report.as_markdown(), values=report.as_json())
    for warning in report.warnings():
        console.print(f"warning: {escape(warning)}", soft_wrap=True)
    for note in report.notes():
        console.print(escape(note), soft_wrap=True)
    if plain is not None:
        both = [d for network in (floating, integer) for d in plain_differences(network, form=plain)]
        console.print("the NIR graphs are plain and say less than the networks:", soft_wrap=True)
        for difference in dict.fromkeys(both):
            console.print(f"  {escape(difference)}", soft_wrap=True)
    console.print(report.proof, soft_wrap=True)
    console.print(f"report: {escape(str(folder / 'export.md'))} and export.json", soft_wrap=True)
    show_next(console, "run", f"--backend lava-fixed --run {folder}", data_dir=arguments.data_dir)
    return 0


def plain_form(arguments: Arguments) -> PlainForm | None:
    """The plain form of NIR graphs that is asked for.

    Raises
    ------
    ConfigError : if options are given that say nothing without others.
    """
    if arguments.nir_neurons == "plain" and arguments.to == "nir":
        return PlainForm(arguments.nir_reader, None if arguments.from_nir else arguments.time_step)
    for option, given, needed in (
        ("--nir-neurons plain", arguments.nir_neurons == "plain", "--to nir"),
        (f"--nir-reader {arguments.nir_reader}", arguments.nir_reader != "nir", "--nir-neurons plain"),
    ):
        if given:
            raise ConfigError(f"{option}: found without {needed}; allowed: with it")
    return None


def lowered(arguments: Arguments, run: Path) -> tuple[HardwareNetwork, Dataset]:
    """Lower a training: its float network in hardware timing, and its dataset."""
    trained = load_checkpoint(run / BEST)
    floating = lower(trained)
    if arguments.settings.time_steps:
        floating = dataclasses.replace(floating, time_steps=arguments.settings.time_steps)
    return floating, dataset_of(trained, arguments)


def imported(arguments: Arguments) -> tuple[HardwareNetwork, Dataset]:
    """Read a NIR graph: its float network in hardware timing, and its dataset."""
    assert arguments.from_nir is not None and arguments.dataset is not None
    dataset = load_dataset(arguments.dataset, arguments.data_dir)
    steps = arguments.settings.time_steps or None
    network = import_nir(
        arguments.from_nir, dataset, time_steps=steps, time_step=arguments.time_step, reset=arguments.nir_reset
    )
    if "from_nir" in network.provenance:
        read = network.provenance["from_nir"]
        console.print(f"reset: {escape(read['reset'])} ({escape(read['known'])})", soft_wrap=True)
    return network, dataset
