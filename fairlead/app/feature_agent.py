"""`fairlead agent serve`: a region's feature agent, in a process of its own, that speaks to its registry by HTTP alone.

It needs no access to the metadata database. Cut off from the registry, it goes on with what it has: tickets that were
signed before (five minutes at most), definitions it looked up and rows it fetched. What it has not is `Unavailable`.
What crossed it is told when the registry is back.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.app.edge_cache import connect_as
from fairlead.app.feature_sources import feature_sources
from fairlead.app.kept_answers import KeptAnswers
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.core.errors import (
    Conflict,
    FairleadError,
    FeatureAgentNotFound,
    InvalidInput,
    NotFound,
    ReplicaUnavailable,
    Unavailable,
)
from fairlead.core.loopback import is_loopback
from fairlead.featurestore.agent_flight import AgentLimits, FeatureAgentServer
from fairlead.featurestore.agents import fingerprint
from fairlead.featurestore.definitions import ViewDefinition, view_from_content
from fairlead.featurestore.stored_rows import flatten, read_stored
from fairlead.featurestore.ticket_joins import TicketJoins
from fairlead.featurestore.tickets import LIFE, Ticket, TicketPart, TicketView, token_hash
from fairlead.sdk.embedded import Home
from fairlead.sync.scratch import Scratch

if TYPE_CHECKING:
    from fairlead.featurestore.agents import Crossing
    from fairlead.sdk.client import Fairlead

SIGN_SECONDS = 5.0
LOOK_SECONDS = 60.0
_REPORTS_KEPT = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """What an agent shows: PEM of its certificate and key, and of what callers hold it to (that, or its authority)."""

    certificate: bytes
    key: bytes
    anchor: bytes

    @property
    def certificate_sha256(self) -> str:
        """The fingerprint of what callers hold it to."""
        return fingerprint(self.anchor.decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeptRows:
    """The verified rows of an artifact, and how their file looked then."""

    path: Path
    looks: tuple[int, ...] | None


class RegistryLink:
    """An agent's registry over HTTP: where it finds definitions and rows, asks about tokens, and tells what it did."""

    def __init__(self, client: Fairlead, *, region: str) -> None:
        self._client = client
        self._artifacts = client.artifacts.without_caches()
        self._cache = Home(path=client.settings.home).cache / "artifacts"
        self._region = region
        self._connect = connect_as(client.settings, client.url)
        self._definitions: dict[str, ViewDefinition] = {}
        self._kept: dict[str, _KeptRows] = {}
        self._fetching: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._tokens: KeptAnswers[str, bool] = KeptAnswers(time.monotonic)
        self._reports: deque[tuple[str, Crossing]] = deque(maxlen=_REPORTS_KEPT)
        self._has_reports = threading.Event()
        self._lock = threading.Lock()
        self._keys: tuple[bytes, ...] = ()
        self._workspace = ""

    @property
    def workspace(self) -> str:
        """The workspace that the agent is of."""
        return self._workspace

    def public_keys(self) -> tuple[bytes, ...]:
        """The keys that sign tickets, as they were last heard."""
        return self._keys

    def sign(self, address: str, certificate_sha256: str, *, leaves: bool = False) -> None:
        """Say that the agent serves, or leaves; hear which keys sign tickets.

        Raises:
            FeatureAgentNotFound, PermissionDenied: if the registry knows no such agent of this token's.
            ServerUnavailable: if it is away.
        """
        heard = self._client.agents.sign(
            region=self._region, address=address, certificate_sha256=certificate_sha256, leaves=leaves
        )
        self._keys, self._workspace = heard.ticket_keys, heard.workspace

    def check_token(self, token: str) -> None:
        """Ask whether a token is still good, once a minute; while the registry is away, its ticket says so.

        Raises:
            Unauthenticated: if it is not.
        """

        def ask() -> bool:
            client = self._connect(token)
            try:
                client.whoami()
            except Unavailable:
                _log.warning("the registry is away: a token stands by its ticket")
            finally:
                client.close()
            return True

        self._tokens.get(token_hash(token), ask, stands_seconds=LIFE.total_seconds())

    def definition(self, ticket: Ticket, view: TicketView) -> ViewDefinition:
        """The view of that digest: looked up once, since it never changes, and compared with the digest.

        Raises:
            FeatureViewNotFound: if the registry has none.
            ServerUnavailable: if it is away.
        """
        del ticket
        found = self._definitions.get(view.view_digest)
        if found is None:
            answer = self._client.agents.view_version(view.view_digest)
            content, classes = answer["content"], answer["column_residency"]
            assert isinstance(content, dict)  # noqa: S101  (an answer of our own)
            assert isinstance(classes, dict)  # noqa: S101
            found = view_from_content(
                content, str(answer["residency"]), None, {name: str(under) for name, under in classes.items()}
            )
            if found.digest != view.view_digest:
                raise InvalidInput("The registry answered another definition than was asked for.")
            self._definitions[view.view_digest] = found
        return found

    def rows(self, ticket: Ticket, part: TicketPart) -> Path:
        """The rows of a part from a replica in this region, verified when they come and when the file has changed.

        Raises:
            ReplicaUnavailable: if no replica here can be read.
        """
        del ticket
        digest = part.digest or ""
        with self._lock:
            fetching = self._fetching[digest]
        with fetching:
            kept = self._kept.get(digest)
            if kept is None or _looks(kept.path) != kept.looks:
                try:
                    path = _flat(self._artifacts.download(digest, only=self._region))
                except ReplicaUnavailable as error:
                    raise ReplicaUnavailable(
                        f"{self._region} has no verified replica of {digest} that can be read.",
                        hint="See what is copied: fairlead replicate watch. Or read the view where its replica is.",
                        digest=digest,
                        region=self._region,
                    ) from error
                self._kept[digest] = kept = _KeptRows(path=path, looks=_looks(path))
        return kept.path

    def forget_gone(self) -> None:
        """Delete what was fetched of artifacts that the region has no verified replica of any more.

        Raises:
            Unavailable: if the registry is away.
        """
        for folder in [*self._cache.glob("?" * 64)]:
            digest = f"sha256:{folder.name}"
            try:
                replicas = self._artifacts.get(digest).replicas
            except NotFound:
                replicas = ()
            if not any(each.region == self._region and each.state == "VERIFIED" for each in replicas):
                with self._lock:
                    fetching = self._fetching[digest]
                with fetching:
                    self._kept.pop(digest, None)
                    _flat_path(folder).unlink(missing_ok=True)
                    shutil.rmtree(folder)

    def report(self, ticket: str, crossing: Crossing) -> None:
        """Keep what went through until it is told, which is at once if the registry is there."""
        self._reports.append((ticket, crossing))
        self._has_reports.set()

    def wake(self) -> None:
        """End a `wait`."""
        self._has_reports.set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until there is something to tell."""
        self._has_reports.wait(seconds)
        self._has_reports.clear()

    def tell(self) -> None:
        """Tell what went through; what cannot be told now is kept, what is refused is dropped."""
        while self._reports:
            ticket, crossing = self._reports[0]
            try:
                self._client.agents.report({"ticket": ticket, **asdict(crossing)})
            except Unavailable:
                return
            except FairleadError as error:
                _log.warning("what went through for a call was not taken: %s", error.code)
            self._reports.popleft()


def _flat(folder: Path) -> Path:
    """The rows of an artifact's files, whatever base and deltas they are stored as, as one file."""
    stored = read_stored(folder)
    if not stored.deltas:
        return stored.base
    path = _flat_path(folder)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    flatten(stored, draft)
    draft.replace(path)
    return path


def _looks(path: Path) -> tuple[int, ...] | None:
    """What is different of a file that was written to or put in place of another; None if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _flat_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.flat.parquet")


def serve_agent(
    client: Fairlead,
    *,
    region: str,
    host: str,
    port: int,
    address: str | None,
    identity: AgentIdentity | None,
    limits: AgentLimits,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InvalidInput: if others could reach it, and it has no certificate of its own.
        PermissionDenied: if it is not registered, and the token may not do so.
        Conflict: if the port is taken.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if identity is None:
        if not is_loopback(f"https://{host}"):
            raise InvalidInput(
                f"An agent at {host} needs a certificate.", hint="Give --certificate FILE and --key FILE (PEM)."
            )
        identity = loopback_identity()
    settings = ServerSettings.read(home=client.settings.home)
    link = RegistryLink(client, region=region)
    joins = TicketJoins(link, sources=feature_sources(settings, is_embedded=False), region=region)
    folder = settings.folder / "agents" / region.replace(":", "-")
    try:
        server = FeatureAgentServer(
            joins,
            link,
            SystemClock(),
            region=region,
            host=host,
            port=port,
            certificate=identity.certificate,
            key=identity.key,
            scratch=Scratch(folder),
            limits=limits,
        )
    except OSError as error:
        raise Conflict(f"Nothing can listen on {host}:{port}.", hint="Choose another with --port.") from error
    at = address or f"{f'[{host}]' if ':' in host else host}:{server.port}"
    try:
        _introduce(client, link, region, at, identity)
    except FairleadError:
        server.shutdown()
        raise
    if not _run(server, link, region, at, identity):
        # Nothing else ends the call of somebody who sends and reads no more.
        logging.shutdown()
        os._exit(0)


def loopback_identity() -> AgentIdentity:
    """A certificate of its own that is good for loopback names alone, for ten years, and kept nowhere."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fairlead feature agent")])
    now = dt.datetime.now(dt.UTC)
    names = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
        x509.DNSName("localhost"),
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return AgentIdentity(certificate=certificate, key=private, anchor=certificate)


def read_identity(certificate: Path, key: Path, authority: Path | None) -> AgentIdentity:
    """An identity from files; callers hold the agent to its own certificate, unless an authority's is given.

    Raises:
        InvalidInput: if one cannot be read.
    """
    try:
        found = AgentIdentity(
            certificate=certificate.read_bytes(),
            key=key.read_bytes(),
            anchor=(authority or certificate).read_bytes(),
        )
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}.", hint="Give files in PEM.") from error
    _ = found.certificate_sha256
    return found


def _introduce(client: Fairlead, link: RegistryLink, region: str, address: str, identity: AgentIdentity) -> None:
    try:
        link.sign(address, identity.certificate_sha256)
    except FeatureAgentNotFound:
        # Whoever may, registers the agent; for others an admin did, or has to.
        client.agents.add(region=region, address=address, certificate=identity.anchor.decode())
        link.sign(address, identity.certificate_sha256)


def _run(server: FeatureAgentServer, link: RegistryLink, region: str, address: str, identity: AgentIdentity) -> bool:
    """Serve until a signal; whether every call has ended then."""
    stop = threading.Event()

    def leave(_number: int, _frame: object) -> None:
        stop.set()
        link.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    sys.stdout.write(f"The feature agent of {region} answers at {address}\n")
    sys.stdout.flush()
    signed_at, looked_at = time.monotonic(), -math.inf
    while not stop.is_set():
        link.wait(SIGN_SECONDS)
        try:
            if time.monotonic() - signed_at >= SIGN_SECONDS:
                link.sign(address, identity.certificate_sha256)
                signed_at = time.monotonic()
            link.tell()
            if time.monotonic() - looked_at >= LOOK_SECONDS:
                looked_at = time.monotonic()
                link.forget_gone()
        except FairleadError as error:
            _log.warning("the registry did not hear this agent: %s", error.code)
        except OSError as error:
            _log.warning("what is kept here could not be looked through: %s", type(error).__name__)
    try:
        # First, so that no plan sends anybody here any more.
        link.sign(address, identity.certificate_sha256, leaves=True)
    except FairleadError as error:
        _log.warning("the registry did not hear that this agent leaves: %s", error.code)
    is_done = server.shutdown()
    link.tell()
    return is_done
