"""How pods ask for accelerators: whole boards, shares of one, TPU slices and Neuron cores.

A share below 1 needs a node that splits its boards: by time (every pod sees the whole board and its memory, nothing
holds one back from the others), or, on boards that have it, by NVIDIA's MIG (cores and memory of its own).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from fairlead.core.errors import InvalidInput
from fairlead.serving.workload import Workload

GpuSharing = Literal["time-slicing", "mig"]

# MIG profiles of each board, by seventh of its cores: NVIDIA Multi-Instance GPU User Guide, "Supported MIG Profiles".
_MIG: Mapping[str, Sequence[tuple[int, str]]] = MappingProxyType(
    {
        "A100-40": ((1, "1g.5gb"), (2, "2g.10gb"), (3, "3g.20gb"), (4, "4g.20gb")),
        "A100-80": ((1, "1g.10gb"), (2, "2g.20gb"), (3, "3g.40gb"), (4, "4g.40gb")),
        "H100-80": ((1, "1g.10gb"), (2, "2g.20gb"), (3, "3g.40gb"), (4, "4g.40gb")),
        "H100-94": ((1, "1g.12gb"), (2, "2g.24gb"), (3, "3g.47gb"), (4, "4g.47gb")),
    }
)
_MIG_SLICES = 7

# As the label nvidia.com/gpu.product of NVIDIA's GPU feature discovery says it.
_PRODUCTS: Mapping[str, str] = MappingProxyType(
    {
        "A10": "NVIDIA-A10",
        "A10G": "NVIDIA-A10G",
        "A100-40": "NVIDIA-A100-SXM4-40GB",
        "A100-80": "NVIDIA-A100-SXM4-80GB",
        "H100-80": "NVIDIA-H100-80GB-HBM3",
        "H100-94": "NVIDIA-H100-NVL",
        "L4": "NVIDIA-L4",
        "T4": "Tesla-T4",
        "V100": "Tesla-V100-SXM2-16GB",
    }
)

# As GKE's label cloud.google.com/gke-accelerator says it: "GPU types available", Google Kubernetes Engine.
_GKE_GPUS: Mapping[str, str] = MappingProxyType(
    {
        "A100-40": "nvidia-tesla-a100",
        "A100-80": "nvidia-a100-80gb",
        "H100-80": "nvidia-h100-80gb",
        "L4": "nvidia-l4",
        "T4": "nvidia-tesla-t4",
        "V100": "nvidia-tesla-v100",
    }
)

# GKE's labels for TPU slices, and the topologies of one host by its chips: "Plan TPUs in GKE".
_TPUS: Mapping[str, tuple[str, Mapping[int, str]]] = MappingProxyType(
    {
        "TPU-v5e": ("tpu-v5-lite-podslice", {1: "1x1", 4: "2x2", 8: "2x4"}),
        "TPU-v5p": ("tpu-v5p-slice", {4: "2x2x1"}),
        "TPU-v6e": ("tpu-v6e-slice", {1: "1x1", 4: "2x2", 8: "2x4"}),
    }
)

# NeuronCores of one Neuron device: AWS Neuron documentation, "Neuron devices".
_NEURON_CORES: Mapping[str, int] = MappingProxyType({"Inferentia1": 4, "Inferentia2": 2, "Trainium1": 2})


class NodeLabels(StrEnum):
    """Whose labels say which accelerator a node has."""

    GKE = "gke"
    FEATURE_DISCOVERY = "feature-discovery"
    INSTANCE_TYPE = "instance-type"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorRequest:
    """What a pod asks for: counted resources, labels of the node, taints that it bears."""

    resources: Mapping[str, str] = field(default_factory=dict[str, str])
    node_selector: Mapping[str, str] = field(default_factory=dict[str, str])
    tolerations: Sequence[Mapping[str, Any]] = ()


def accelerator_request(workload: Workload, nodes: NodeLabels, sharing: GpuSharing | None) -> AcceleratorRequest:
    """What to ask for so that each replica gets its accelerator, or its share of one.

    Raises:
        InvalidInput: if the platform has no such accelerator, or none that is shared as it would have to be.
    """
    board, share = workload.resources.accelerator, workload.resources.accelerator_share
    if board is None:
        return AcceleratorRequest()
    if board in _TPUS:
        return _tpu(board, share, nodes)
    if board in _NEURON_CORES:
        return _neuron(board, share)
    count = math.ceil(share)
    selector = _gpu_selector(workload, board, nodes)
    resource = "nvidia.com/gpu"
    if share < 1:
        if sharing is None:
            raise InvalidInput(
                f"{workload.deployment} needs {share:g} of one {board}; this target does not say how boards are split.",
                hint="Set gpu_sharing to time-slicing or mig, as the cluster's nodes are.",
            )
        resource, more = _shared(board, share, nodes, sharing)
        selector, count = selector | more, 1
    return AcceleratorRequest(
        resources={resource: str(count)}, node_selector=selector, tolerations=(_tolerate("nvidia.com/gpu"),)
    )


def _gpu_selector(workload: Workload, board: str, nodes: NodeLabels) -> dict[str, str]:
    if nodes is NodeLabels.GKE:
        if board not in _GKE_GPUS:
            raise InvalidInput(f"GKE has no {board}.", hint="Place the deployment where there is one.")
        return {"cloud.google.com/gke-accelerator": _GKE_GPUS[board]}
    # The instance type says which board it is, where one is chosen.
    if nodes is NodeLabels.FEATURE_DISCOVERY or workload.instance_type is None:
        if board not in _PRODUCTS:
            raise InvalidInput(
                f"No label is known for nodes with {board}.", hint="Name them by node_selector, and leave it out."
            )
        return {"nvidia.com/gpu.product": _PRODUCTS[board]}
    return {}


def _shared(board: str, share: float, nodes: NodeLabels, sharing: GpuSharing) -> tuple[str, dict[str, str]]:
    if sharing == "time-slicing":
        if nodes is not NodeLabels.GKE:
            return "nvidia.com/gpu.shared", {}
        clients = {"cloud.google.com/gke-max-shared-clients-per-gpu": str(math.floor(1 / share))}
        return "nvidia.com/gpu", {"cloud.google.com/gke-gpu-sharing-strategy": "time-sharing"} | clients
    profiles = _MIG.get(board, ())
    found = next((name for sevenths, name in profiles if sevenths >= math.ceil(share * _MIG_SLICES - 1e-9)), None)
    if found is None:
        raise InvalidInput(
            f"No MIG profile of {board} has {share:g} of its cores.",
            hint="Share boards by time-slicing, or ask for a whole one.",
        )
    if nodes is NodeLabels.GKE:
        return "nvidia.com/gpu", {"cloud.google.com/gke-gpu-partition-size": found}
    return f"nvidia.com/mig-{found}", {}


def _tpu(board: str, share: float, nodes: NodeLabels) -> AcceleratorRequest:
    slices, topologies = _TPUS[board]
    if nodes is not NodeLabels.GKE:
        raise InvalidInput(f"Only GKE in the cloud has {board}.", hint="Use a target whose distribution is gke.")
    chips = math.ceil(share)
    if share < 1 or chips not in topologies:
        counts = " or ".join(str(count) for count in topologies)
        raise InvalidInput(f"A host's slice of {board} has {counts} chips, not {share:g}.", hint="Ask for that many.")
    return AcceleratorRequest(
        resources={"google.com/tpu": str(chips)},
        node_selector={
            "cloud.google.com/gke-tpu-accelerator": slices,
            "cloud.google.com/gke-tpu-topology": topologies[chips],
        },
        tolerations=(_tolerate("google.com/tpu"),),
    )


def _neuron(board: str, share: float) -> AcceleratorRequest:
    if share >= 1:
        resources = {"aws.amazon.com/neuron": str(math.ceil(share))}
    else:
        resources = {"aws.amazon.com/neuroncore": str(max(1, math.ceil(share * _NEURON_CORES[board] - 1e-9)))}
    return AcceleratorRequest(resources=resources, tolerations=(_tolerate("aws.amazon.com/neuron"),))


def _tolerate(key: str) -> dict[str, str]:
    return {"key": key, "operator": "Exists", "effect": "NoSchedule"}
