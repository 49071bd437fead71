"""What is to be said of the number of steps T for which a network runs: reports warn of it, whatever they report on."""

from fsnn_lava.errors import counted
from fsnn_lava.hardware import HardwareNetwork


def time_step_warnings(network: HardwareNetwork) -> list[str]:
    """Say if a network runs for another T than it was trained for, or if spikes on their way never arrive within T."""
    steps, found = network.time_steps, []
    trained = network.provenance.get("config", {}).get("network", {}).get("time_steps", steps)
    if trained != steps:
        found.append(
            f"runs for T = {steps}, was trained for T = {trained}: rates after another number of steps are others, "
            "and with them the accuracy"
        )
    late = [c for c in network.connections if network.local_delay(c) >= steps]
    found += [
        f"{c.name}: its spikes arrive {counted(network.local_delay(c), 'step')} late, and a window has {steps}: none "
        "ever arrives"
        for c in late
    ]
    return found
