"""Workloads that kinds of targets are asked to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fairlead.core.ids import Digest, RegionId
from fairlead.serving.workload import ReplicaResources, Scaling, Workload

CPU = ReplicaResources(vcpus=1.5, memory_gib=3.0)
L4 = ReplicaResources(vcpus=4.0, memory_gib=16.0, accelerator="L4", accelerator_share=1.0)
T4 = ReplicaResources(vcpus=4.0, memory_gib=14.0, accelerator="T4", accelerator_share=1.0)


def workload(region: str = "aws:us-east-1", **changes: Any) -> Workload:
    """The eighth version of a small model, that reads features and grows with its requests."""
    given: dict[str, Any] = {
        "workspace": "default",
        "deployment": "churn",
        "model": "churn",
        "version": 8,
        "environment": "production",
        "region": RegionId(region),
        "residency": "unrestricted",
        "bundle_digest": Digest("sha256:" + "8b" * 32),
        "image": "registry.example.com/churn@sha256:" + "8c" * 32,
        "resources": CPU,
        "scaling": Scaling(min_replicas=2, max_replicas=6, requests_per_second_per_replica=40.0),
        "online_store": "redis://features.internal:6379",
        "variables": {"GREETING": 'say "${hello}" at 100%{}'},
        "labels": {"owner": "ana@example.com", "team": "growth"},
    }
    return Workload(**given | changes)


def beside_former(newest: Workload, percent: int = 10) -> Workload:
    """The same while traffic moves to it from the version before."""
    former = replace(
        newest,
        version=7,
        bundle_digest=Digest("sha256:" + "7b" * 32),
        image=None if newest.image is None else newest.image.replace("8c", "7c"),
        bento=None if newest.bento is None else newest.bento.replace("8a", "7a"),
        former=None,
    )
    return replace(newest, former=former, traffic_percent=percent)
