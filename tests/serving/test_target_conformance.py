"""The local target keeps what every deploy target promises; a small server stands for `bentoml serve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.core.ids import Digest
from fairlead.serving.local_target import LocalTarget
from fairlead.serving.targets import DeployTarget, EndpointSpec, identity_of
from fairlead.sync.store.manifest import build_manifest
from fairlead.testing.target_conformance import DeployTargetSuite, ensured
from tests.serving.small_server import write_interpreter


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_interpreter(tmp_path_factory.mktemp("python"))


class TestLocalTarget(DeployTargetSuite):
    @pytest.fixture
    def reopen(self, tmp_path: Path, python: str) -> Callable[[], DeployTarget]:
        def download(spec: EndpointSpec, destination: Path) -> None:
            destination.mkdir(parents=True)
            name = "one" if spec.workload.version == 1 and spec.bundle_digest == _digest(tmp_path, "one") else "two"
            (destination / "bento.yaml").write_text(name)

        return lambda: LocalTarget(tmp_path / "deployments", download, python=python)

    @pytest.fixture
    def target(self, reopen: Callable[[], DeployTarget]) -> DeployTarget:
        return reopen()

    @pytest.fixture
    def bundles(self, tmp_path: Path) -> tuple[Digest, Digest]:
        return _digest(tmp_path, "one"), _digest(tmp_path, "two")

    def test_an_endpoint_that_lives_and_does_not_answer_is_seen_and_replaced(
        self, target: LocalTarget, one: EndpointSpec, tmp_path: Path
    ) -> None:
        running = ensured(target, one)
        assert running.identity == identity_of(one)
        home = tmp_path / "deployments" / "default" / "churn" / "gcp-europe-west4"
        (home / "hangs").touch()
        seen = target.observe(one)
        assert seen is not None
        assert not seen.is_ready
        # What starts in its place is not ready either before what ails it is mended.
        (home / "hangs").unlink()
        assert ensured(target, one).url == running.url


def _digest(folder: Path, name: str) -> Digest:
    source = folder / f"source-{name}"
    source.mkdir(exist_ok=True)
    (source / "bento.yaml").write_text(name)
    return build_manifest(source).digest
