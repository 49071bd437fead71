"""Export a trained network, or a NIR graph: lower it, quantize it, prove its 24-bit state, write both networks.

Writes network-float.h5 and network-integer.h5 into the run's folder (their format: docs/network-format.md), a report of
what rounding did, how large the network is and how much it works (export.md, export.json), and what --to asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.cli.script import command_line, show_next
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion import NETWORK_FILES, calibration_codes, lower, on_codes, read_nir, write_netx, write_nir
from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.errors import ConfigError, UnsupportedError
from fsnn_lava.files import new_run_folder, newest_run, write_json, write_text
from fsnn_lava.hardware import Array, HardwareNetwork, save_network, with_timing
from fsnn_lava.quantization import LOST_SHARE, NEGLIGIBLE_SHARE, QuantizationReport, quantize
from fsnn_lava.training import BEST, load_checkpoint
from fsnn_lava.verification import LOIHI_1, EnergyModel, ExportReport, network_size, run_activity

console = Console()
WORK_SAMPLES = 32
"""Calibration samples on which spikes and synaptic operations are counted."""


@dataclass(frozen=True)
class Arguments:
    """Export a trained network, or a NIR graph."""

    to: Literal["lava", "netx", "nir"] = "lava"
    """lava: the two network files, which `fsnn run` runs on Lava. netx: also network.net for lava-dl's
    netx.hdf5.Network. nir: also both networks as NIR graphs, network-float.nir and network-integer.nir."""
    run: Path | None = None
    """Folder of the training; default: the newest one."""
    runs: Path = Path("runs")
    """Where run folders are."""
    from_nir: Path | None = None
    """Export this NIR graph, in a new run folder of its name, instead of a training; needs --dataset."""
    dataset: str | None = None
    """Dataset whose normalised values the NIR graph was made for."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""
    energy: EnergyModel = LOIHI_1
    """What a synaptic operation costs, for the report; a figure of your own needs its source."""
    settings: Annotated[DeployConfig, tyro.conf.arg(name="")] = field(default_factory=DeployConfig)


def main(argv: list[str]) -> int:
    """Exit status 0."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__, prog=command_line("export"))
    if (arguments.from_nir is None) != (arguments.dataset is None) or (arguments.from_nir and arguments.run):
        raise ConfigError("--from-nir FILE and --dataset NAME go together, without --run")
    floating, dataset, folder = imported(arguments) if arguments.from_nir else lowered(arguments)
    calibration = calibration_codes(dataset, count=arguments.settings.calibration_samples)
    with console.status(f"quantizing, and proving the 24-bit state over {floating.time_steps} steps"):
        integer, report = quantize(floating, calibration, config=arguments.settings)
    refuse_lost(report, integer.time_steps)
    work = work_on(integer, calibration, arguments.energy, report)
    folder = folder or new_run_folder(arguments.runs, floating.name)
    for path in written(arguments.to, folder, floating, integer):
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    write_json(folder / "export.json", work.as_json())
    write_text(folder / "export.md", work.as_markdown())
    console.print(Markdown(work.as_markdown()))
    console.print(f"24-bit state proven for every allowed input over T = {integer.time_steps} steps")
    console.print(f"report: {escape(str(folder / 'export.md'))} and export.json", soft_wrap=True)
    show_next(console, "run", f"--backend lava-fixed --run {folder}", data_dir=arguments.data_dir)
    return 0


def lowered(arguments: Arguments) -> tuple[HardwareNetwork, Dataset, Path]:
    """The float network of a training in hardware timing, its dataset, its folder."""
    folder = arguments.run or newest_run(arguments.runs, BEST)
    trained = load_checkpoint(folder / BEST)
    floating = with_timing(lower(trained), "hardware")
    if arguments.settings.time_steps:
        floating = dataclasses.replace(floating, time_steps=arguments.settings.time_steps)
    return floating, load_dataset(trained.config.dataset, arguments.data_dir), folder


def imported(arguments: Arguments) -> tuple[HardwareNetwork, Dataset, None]:
    """The float network of a NIR graph in hardware timing, for the codes of a dataset.

    Raises
    ------
    UnsupportedError, NetworkError : if the graph cannot be understood, has delays that hardware timing would change,
        or is one of integers already.
    """
    assert arguments.from_nir is not None and arguments.dataset is not None
    dataset = load_dataset(arguments.dataset, arguments.data_dir)
    network = read_nir(arguments.from_nir, time_steps=arguments.settings.time_steps or None)
    if network.arithmetic != "float":
        raise UnsupportedError(f"NIR file {arguments.from_nir}: holds integers; export the float graph")
    if "config" not in network.provenance:
        network = on_codes(network, dataset.coding)
    sequential, hardware = (with_timing(network, timing) for timing in ("sequential", "hardware"))
    if not any(
        [c.delay for c in network.connections] == [c.delay for c in timed.connections]
        for timed in (sequential, hardware)
    ):
        raise UnsupportedError(
            f"NIR file {arguments.from_nir}: has delays of its own; allowed: none but one step on every feedback edge"
        )
    provenance = {
        **network.provenance,
        "config": {**network.provenance.get("config", {}), "dataset": arguments.dataset},
    }
    return dataclasses.replace(hardware, provenance=provenance), dataset, None


def written(to: str, folder: Path, floating: HardwareNetwork, integer: HardwareNetwork) -> Iterator[Path]:
    """Each file of the export, once it is written; a target that refuses the network leaves none behind.

    Raises
    ------
    UnsupportedError : naming everything that the target cannot say.
    """
    if to == "netx":
        yield write_netx(integer, folder / "network.net")
    elif to == "nir":
        for network in (floating, integer):
            yield write_nir(network, folder / f"network-{network.arithmetic}.nir")
    for network in (floating, integer):
        path = folder / NETWORK_FILES[network.arithmetic]
        save_network(network, path)
        yield path


def work_on(
    network: HardwareNetwork, calibration: Array, energy: EnergyModel, report: QuantizationReport
) -> ExportReport:
    """The report of the export; spikes and operations are those of some calibration samples in the simulator.

    Raises
    ------
    ConfigError : if the energy is not the default's but its source is.
    """
    if energy != LOIHI_1 and energy.source == LOIHI_1.source:
        raise ConfigError(
            f"--energy.pj-per-synaptic-operation: found {energy.pj_per_synaptic_operation} pJ without a source; say "
            "where the figure is from with --energy.source"
        )
    some = network.input.take(calibration, slice(WORK_SAMPLES))
    activity = run_activity(network, IntegerSimulator().run(network, some), inputs=some)
    return ExportReport(network.name, report, network_size(network), activity, energy)


def refuse_lost(report: QuantizationReport, time_steps: int) -> None:
    """Refuses a network of which rounding left too little: the 24-bit state of long windows allows small scales only.

    Raises
    ------
    UnsupportedError : naming the connections.
    """
    if report.lost():
        listed = "\n  ".join(f"{n}: {report.connections[n].current_error:.0%}" for n in report.lost())
        raise UnsupportedError(
            f"nothing was written: integers for T = {time_steps} lose these connections (root mean square error, as a "
            f"share of the current they carry; of a constant one below {NEGLIGIBLE_SHARE:.0%} of the reset amount, of "
            f"that; allowed: {LOST_SHARE:.0%}):\n  {listed}\n"
            "A potential sums up negative currents for the whole window and must fit 24 bits: use fewer --time-steps, "
            "or more --weight-bits"
        )
