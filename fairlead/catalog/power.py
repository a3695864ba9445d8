"""Watts: how much power an instance and a byte on its way are taken to draw.

No cloud publishes what one customer's instance draws, so these are estimates, made the way Cloud Carbon Footprint makes
them, with one set of coefficients for all clouds: another set per cloud would favour a cloud by its bookkeeping.
"""

from __future__ import annotations

from types import MappingProxyType

from fairlead.catalog.figures import Figure
from fairlead.catalog.prices import Price

COMPUTE_METHOD = (
    "kW = [vCPU x (0.74 W + u x 2.76 W) + GiB x 0.392 W + accelerators x (idle W + u x (full W - idle W))] / 1000"
)
NETWORK_METHOD = "kWh = GB x 0.001 kWh/GB x PUE of the sending region; gCO2e = kWh x grid of the sending region"
NETWORK_KWH_PER_GB = Figure(
    value=0.001,
    unit="kWh/GB",
    source="Cloud Carbon Footprint NETWORKING_COEFFICIENT, 2024-03 (Apache-2.0)",
    is_estimate=True,
)

_SOURCE = "Cloud Carbon Footprint compute and memory coefficients, 2024-03 (Apache-2.0)"
_VCPU_IDLE_WATTS = 0.74
_VCPU_FULL_WATTS = 3.5
_MEMORY_WATTS_PER_GIB = 0.392
# Idle and full watts of one board. The first four are Cloud Carbon Footprint's; it has none for the others, which take
# the board power that the maker states and the idle share of the first four (0.115).
_IDLE_SHARE = 0.115
_ACCELERATOR_WATTS = MappingProxyType(
    {
        "T4": (8.0, 71.0),
        "A10G": (18.0, 153.0),
        "V100": (35.0, 306.0),
        "A100-40": (46.0, 407.0),
        "A100-80": (46.0, 407.0),
        "A10": (_IDLE_SHARE * 150.0, 150.0),
        "L4": (_IDLE_SHARE * 72.0, 72.0),
        "H100-80": (_IDLE_SHARE * 700.0, 700.0),
        "H100-94": (_IDLE_SHARE * 400.0, 400.0),
    }
)


def instance_power(instance: Price, *, utilization: float) -> Figure | None:
    """The watts of one instance at a utilization from 0 to 1, before PUE; None where the accelerator's are unknown.

    The whole accelerator board and every vCPU are counted, whatever share of them the model uses: what is rented is
    drawn.
    """
    if instance.idle_watts is not None and instance.full_watts is not None:
        drawn = instance.idle_watts + utilization * (instance.full_watts - instance.idle_watts)
        return Figure(value=drawn, unit="W", source="stated by the region's owner", is_estimate=True)
    watts = instance.vcpus * (_VCPU_IDLE_WATTS + utilization * (_VCPU_FULL_WATTS - _VCPU_IDLE_WATTS))
    watts += instance.memory_gib * _MEMORY_WATTS_PER_GIB
    source = _SOURCE
    if instance.accelerator is not None:
        board = _ACCELERATOR_WATTS.get(instance.accelerator)
        if board is None:
            return None
        idle, full = board
        watts += instance.accelerator_count * (idle + utilization * (full - idle))
        source += "; accelerator boards: the same, else the maker's board power"
    return Figure(value=watts, unit="W", source=source, is_estimate=True)
