"""Bundles: built once, shown with their papers, tested, and what they may hold."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, overload
from urllib.parse import quote

from fairlead.core.errors import BundleNotFound
from fairlead.core.ids import parse_model_reference, parse_name
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS, recorded_error, wait_until
from fairlead.sdk.records import Bundle, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fairlead.sdk.transport import JsonObject, Transport

_RETRIES_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleTest(Record):
    """A smoke test of a bundle: PENDING, PASSED or FAILED."""

    id: str
    bundle_id: str
    reference: str
    state: str
    answered: int | None = None
    compared: int | None = None
    largest_difference: float | None = None
    seconds: float | None = None
    error_code: str | None = None
    error_detail: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePolicy(Record):
    """What bundles of a model may hold; nobody updated it where the server's setting alone says so."""

    model: str
    allows_pickle: bool
    updated_by: str | None = None
    updated_at: datetime | None = None


class Bundles:
    """BentoML packages, each built once and deployed identically."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def build(
        self,
        reference: str,
        *,
        service_file: str | None = None,
        service_source: str | None = None,
        lock: str | None = None,
        wait: bool = True,
    ) -> Bundle:
        """Build a version's bundle, unless it exists already; the same recipe gives the same digest.

        Args:
            reference: `NAME/VERSION` or `NAME@ALIAS`.
            service_file: path of a BentoML service of one's own in the version's files.
            service_source: text of one; it is read by servers and workers, and run by endpoints alone.
            lock: requirements with exact versions and hashes, such as another bundle's.
            wait: whether to wait until it is built, stored and read back.

        Raises:
            NotReady: if the version's bytes are not verified yet.
            PickleRefused: if the model is a pickle, and no policy allows that.
        """
        document: JsonObject = {"reference": str(parse_model_reference(reference))}
        given = {"service_file": service_file, "service_source": service_source, "lock": lock}
        document |= {name: value for name, value in given.items() if value is not None}
        bundle = Bundle.from_json(self._transport.post("/api/v1/bundles", document))
        return self.wait_ready(bundle) if wait else bundle

    def list(self, *, reference: str | None = None) -> Iterator[Bundle]:
        """Bundles, oldest first; with a reference, those of one version."""
        return map(Bundle.from_json, self._transport.items("/api/v1/bundles", reference=reference))

    def get(self, bundle_id: str) -> Bundle:
        """One bundle.

        Raises:
            BundleNotFound: if there is none of that id.
        """
        return Bundle.from_json(self._transport.get(_path(bundle_id)))

    def of(self, reference: str) -> Bundle:
        """The bundle of a version that deployments run: the newest READY one, or else the newest.

        Raises:
            BundleNotFound: if nobody asked for one yet.
        """
        found = list(self.list(reference=reference))
        if not found:
            raise BundleNotFound(f"{reference} has no bundle.", hint=f"Build it: fairlead bundle {reference}")
        return max(found, key=lambda each: (each.state == "READY", each.id))

    @overload
    def paper(self, bundle_id: str, kind: Literal["lock"]) -> str: ...
    @overload
    def paper(self, bundle_id: str, kind: Literal["sbom", "provenance"]) -> JsonObject: ...
    def paper(self, bundle_id: str, kind: Literal["lock", "sbom", "provenance"]) -> JsonObject | str:
        """A paper of a bundle: the lock as text, the SBOM (CycloneDX 1.6), or the provenance (a DSSE envelope).

        Raises:
            BundleNotFound: if there is no such bundle.
            NotReady: if it is not built yet.
        """
        path = f"{_path(bundle_id)}/papers/{kind}"
        return self._transport.send("GET", path).text if kind == "lock" else self._transport.get(path)

    def test(self, bundle_id: str, *, wait: bool = True) -> BundleTest:
        """Run a bundle in a clean environment, and compare its answers with the version's recorded examples.

        Raises:
            BundleNotFound: if there is no such bundle.
            NotReady: if it is not built yet.
        """
        asked = BundleTest.from_json(self._transport.post(f"{_path(bundle_id)}/tests", {}))
        if not wait:
            return asked
        seen = [asked]

        def find() -> tuple[str, str | None, str | None]:
            seen[:] = [each for each in self.tests(bundle_id) if each.id == asked.id]
            return seen[0].state, seen[0].error_code, seen[0].error_detail

        _wait(find, ("PASSED", "FAILED"), (), f"the smoke test of {asked.reference}", READY_TIMEOUT_SECONDS)
        return seen[0]

    def tests(self, bundle_id: str) -> Iterator[BundleTest]:
        """The smoke tests of a bundle, newest first."""
        return map(BundleTest.from_json, self._transport.items(f"{_path(bundle_id)}/tests"))

    def policy(self, model: str) -> BundlePolicy:
        """What bundles of a model may hold."""
        return BundlePolicy.from_json(self._transport.get(_policy_path(model)))

    def set_policy(self, model: str, *, allows_pickle: bool) -> BundlePolicy:
        """Say whether bundles of a model may hold pickles, which run code when they are opened."""
        return BundlePolicy.from_json(
            self._transport.request("PUT", _policy_path(model), body={"allows_pickle": allows_pickle})
        )

    def wait_ready(self, bundle: Bundle, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> Bundle:
        """Wait until the bundle is built, stored and read back.

        Raises:
            FairleadError: what the worker that built it met, if trying again cannot help or did not within a minute.
            TimeoutError: if no worker finished in time.
        """
        seen = [bundle]

        def find() -> tuple[str, str | None, str | None]:
            seen[:] = [self.get(bundle.id)]
            return seen[0].state, seen[0].error_code, seen[0].error_detail

        _wait(find, ("READY",), ("FAILED",), f"the bundle of {bundle.reference}", timeout_seconds)
        return seen[0]


def _wait(
    find: Callable[[], tuple[str, str | None, str | None]],
    good: tuple[str, ...],
    bad: tuple[str, ...],
    what: str,
    timeout_seconds: float,
) -> None:
    first_failure: list[float] = []

    def check() -> bool:
        state, code, detail = find()
        if state in good:
            return True
        if code is not None and not first_failure:
            first_failure.append(time.monotonic())
        is_hopeless = bool(first_failure) and time.monotonic() - first_failure[0] > _RETRIES_SECONDS
        if state in bad or (is_hopeless and code is not None):
            error = recorded_error({"code": code, "detail": detail}, f"Waiting for {what} failed.")
            # What was recorded ends with the next command already.
            error.hint = None
            raise error
        return False

    wait_until(check, what, timeout_seconds)


def _path(bundle_id: str) -> str:
    return f"/api/v1/bundles/{quote(bundle_id, safe='')}"


def _policy_path(model: str) -> str:
    return f"/api/v1/bundle-policies/{quote(parse_name(model), safe='')}"
