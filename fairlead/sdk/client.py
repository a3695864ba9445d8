"""The client: one object, grouped by noun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fairlead.sdk.agents import FeatureAgents
from fairlead.sdk.artifacts import Artifacts
from fairlead.sdk.budgets import Budgets
from fairlead.sdk.bundles import Bundles
from fairlead.sdk.catalog import CatalogClient
from fairlead.sdk.deploy_targets import DeployTargets
from fairlead.sdk.deployments import Deployments
from fairlead.sdk.embedded import Home, find_or_start
from fairlead.sdk.erasures import Erasures
from fairlead.sdk.events import Events
from fairlead.sdk.expectations import Expectations
from fairlead.sdk.features import Features
from fairlead.sdk.federation import FederatedReads
from fairlead.sdk.identity_tokens import IdentitySource, exchange
from fairlead.sdk.images import Images, Profiles
from fairlead.sdk.imports import Imports
from fairlead.sdk.issuers import Issuers
from fairlead.sdk.keys import Keys
from fairlead.sdk.lifecycle import Cards, Lifecycle, RetentionPolicies
from fairlead.sdk.lineage import Lineages
from fairlead.sdk.locations import Locations
from fairlead.sdk.logins import Logins
from fairlead.sdk.models import Models
from fairlead.sdk.operations import Audit, Environments, Ledger, Tokens
from fairlead.sdk.promotion_policies import PromotionPolicies, RoleBindings
from fairlead.sdk.record_copies import RecordCopies
from fairlead.sdk.replica_policies import ReplicaPolicies
from fairlead.sdk.replications import Replications
from fairlead.sdk.serving import Placements
from fairlead.sdk.signatures import Signatures, Signers
from fairlead.sdk.tracking_servers import TrackingServers
from fairlead.sdk.transport import Transport
from fairlead.sdk.upkeep import Upkeeps
from fairlead.sdk.webhooks import Webhooks
from fairlead.sdk.workspaces import Workspaces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.records import Deployment, Placement
    from fairlead.sdk.settings import ClientSettings
    from fairlead.sdk.transport import JsonObject


class Fairlead:
    """A connection to one Fairlead server.

    Safe to share between threads. `models`, `features`, `expectations`, `erasures`, `federation`, `agents`,
    `artifacts`, `locations`, `environments`, `replica_policies`, `promotion_policies`, `role_bindings`, `bundles`,
    `deployments`, `targets`, `placements`, `images`, `profiles`, `catalog`, `tokens`, `workspaces`, `imports`,
    `issuers`, `audit`, `events`, `webhooks`, `lineage`, `ledger`, `budgets`, `tracking_servers`, `replications`,
    `keys`, `signers`, `signatures`, `lifecycle`, `cards`, `retention` and `record` group the calls by noun.
    """

    def __init__(self, transport: Transport, settings: ClientSettings) -> None:
        self._transport = transport
        self.settings = settings
        self.record = RecordCopies(
            transport, home=settings.home, server=settings.url, region=settings.region, key_files=settings.key_file
        )
        self.artifacts = Artifacts(
            transport,
            cache=Home(path=settings.home).cache,
            region=settings.region,
            key_files=settings.key_file,
            record=self.record,
            edge_cache=settings.edge_cache,
        )
        self.signatures = Signatures(transport, self.record, home=settings.home, server=settings.url)
        self.signers = Signers(transport)
        self.models = Models(transport, self.artifacts, self.record, self.signatures)
        self.imports = Imports(transport, self.models, self.artifacts)
        self.features = Features(transport, settings)
        self.federation = FederatedReads(transport, region=settings.region)
        self.agents = FeatureAgents(transport)
        self.expectations = Expectations(transport)
        self.erasures = Erasures(transport)
        self.locations = Locations(transport)
        self.environments = Environments(transport)
        self.replica_policies = ReplicaPolicies(transport)
        self.promotion_policies = PromotionPolicies(transport)
        self.role_bindings = RoleBindings(transport)
        self.lifecycle = Lifecycle(transport)
        self.cards = Cards(transport)
        self.retention = RetentionPolicies(transport)
        self.catalog = CatalogClient(transport)
        self.placements = Placements(transport)
        self.bundles = Bundles(transport)
        self.deployments = Deployments(transport)
        self.targets = DeployTargets(transport)
        self.images = Images(transport)
        self.profiles = Profiles(transport)
        self.keys = Keys(transport)
        self.issuers = Issuers(transport)
        self.tokens = Tokens(transport)
        self.workspaces = Workspaces(transport)
        self.audit = Audit(transport)
        self.events = Events(transport)
        self.webhooks = Webhooks(transport)
        self.lineage = Lineages(transport)
        self.ledger = Ledger(transport)
        self.replications = Replications(transport)
        self.budgets = Budgets(transport)
        self.tracking_servers = TrackingServers(transport)
        self.upkeep = Upkeeps(transport)

    @classmethod
    def connect(cls, settings: ClientSettings) -> Self:
        """Connect to the server that the settings name, or to the embedded one."""
        if settings.url is not None:
            transport = _connect(settings.url, settings)
        else:
            server = find_or_start(Home(path=settings.home))
            transport = Transport(server.url, settings.token or server.token, timeout_seconds=settings.timeout_seconds)
        return cls(transport, settings)

    @property
    def url(self) -> str:
        """The server's address; its REST documentation is at `/docs`."""
        return self._transport.url

    @property
    def authorization(self) -> str | None:
        """The header that says who is calling, for whoever speaks to the same server another way."""
        return self._transport.authorization

    def renew_token(self) -> bool:
        """Get another token, where the server knows this one no longer; False if there is no way to."""
        return self._transport.renew_token()

    def dry_run(self) -> Self:
        """A client whose calls are checked and answered as if they were done, while nothing of them is kept."""
        return type(self)(self._transport.dry_run(), self.settings)

    def whoami(self) -> JsonObject:
        """Who the caller is: workspace, principal, groups, scopes, grants for some models, roles, and until when."""
        return self._transport.get("/api/v1/whoami")

    def work(self) -> list[JsonObject]:
        """What workers are doing and what waits for one: bytes done and to do, speed, time to go, and why it waits."""
        return list(self._transport.items("/api/v1/work"))

    def place(self, request: JsonObject) -> Placement:
        """Ask the placement engine where to run; the answer is kept and can be deployed by its id.

        Raises:
            PlacementInfeasible: naming the constraints to relax.
        """
        return self.placements.create(request)

    def deploy(
        self,
        reference: str,
        *,
        placement: str | None = None,
        regions: Sequence[str] | None = None,
        name: str | None = None,
        targets: Mapping[str, str] | None = None,
        scaling: Mapping[str, JsonValue] | None = None,
        strategy: Mapping[str, JsonValue] | None = None,
        dry_run: bool = False,
    ) -> Deployment:
        """Run a model version in the regions of a placement (or the named ones).

        `churn@production` follows the environment: promotion and roll-back redeploy. `churn/3` stays at version 3.
        """
        return self.deployments.apply(
            reference,
            placement=placement,
            regions=regions,
            name=name,
            targets=targets,
            scaling=scaling,
            strategy=strategy,
            dry_run=dry_run,
        )

    def close(self) -> None:
        """Close the connections; an embedded server goes on by itself."""
        self.artifacts.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(url: str, settings: ClientSettings) -> Transport:
    """By the token that is set, or by the identity of the CI job that this is, or as whoever is logged in."""
    identity = IdentitySource(
        id_token=settings.id_token,
        id_token_file=settings.id_token_file,
        request_url=settings.actions_request_url,
        request_token=settings.actions_request_token,
    )
    if settings.token is not None:
        return Transport(url, settings.token, timeout_seconds=settings.timeout_seconds)
    if not identity.is_there:
        return _connect_as_person(url, settings)

    def renew() -> str:
        return exchange(url, identity, audience=settings.audience, workspace=settings.workspace)

    return Transport(url, renew(), timeout_seconds=settings.timeout_seconds, renew=renew)


def _connect_as_person(url: str, settings: ClientSettings) -> Transport:
    logins = Logins(settings.home)
    login = logins.find(url)
    if login is None:
        return Transport(url, None, timeout_seconds=settings.timeout_seconds)
    secret = login.secret

    def renew() -> str:
        nonlocal secret
        secret = logins.renew(url, secret)
        return secret

    return Transport(url, secret, timeout_seconds=settings.timeout_seconds, renew=renew)
