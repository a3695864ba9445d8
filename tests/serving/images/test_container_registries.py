"""Workspaces that share a container registry do not see each other's images through their bases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.cloud_hosts import CloudHosts
from fairlead.core.errors import PermissionDenied
from fairlead.registry.tables import WorkspaceRow
from fairlead.serving.container_registries import ContainerRegistries
from tests.fleet import ADMIN, open_fleet
from tests.records import WORKSPACE
from tests.serving.platform import US

DIGEST = "sha256:" + "0" * 64
FOLDER = f"models/{WORKSPACE}/churn"


def test_a_base_is_no_image_of_another_workspace(database_url: str, tmp_path: Path) -> None:
    with open_fleet(tmp_path, database_url) as fleet:
        with fleet.database.write() as session:
            session.add(WorkspaceRow(workspace_id="other", created_at=fleet.clock.now()))
        hosts = CloudHosts(hosts=("registry.example",))
        registries = ContainerRegistries(fleet.database, fleet.clock, catalog=load_catalog(), cloud_hosts=hosts)
        registries.add(ADMIN, name="r", region=US, url="https://registry.example/models", provider="oci")

        def set_variant(workspace_id: str, base: str) -> None:
            admin = replace(ADMIN, workspace_id=workspace_id)
            named = f"{base}@{DIGEST}"
            registries.set_variant(admin, "cpu", platform="linux/amd64", accelerators=(), base=named)

        for host in ("registry.example", "registry.example:443", "registry.example."):
            set_variant(WORKSPACE, f"{host}/{FOLDER}")
            with pytest.raises(PermissionDenied):
                set_variant("other", f"{host}/{FOLDER}")
        for base in (
            "registry.example/models/other/churn",
            "registry.example/library/python",
            f"elsewhere.example/{FOLDER}",
        ):
            set_variant("other", base)
