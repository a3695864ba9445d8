"""Lineage: what a model version was made from, and what was made of it, asked from either end.

The answer is a graph. Its edges lead from what came first to what was made of it: run, commit, snapshot and parent to a
version; a version to its bundles and the versions that were trained from it; a bundle to the deployments that run it.
Nothing here is kept for lineage alone: it is what versions said when they were registered, and what serving does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, and_, or_, select, tuple_
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, NotFound
from fairlead.core.ids import parse_digest, parse_model_reference
from fairlead.featurestore.tables import SnapshotRow
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_text
from fairlead.registry.tables import AliasRow, ModelVersionRow, RegisteredModelRow
from fairlead.registry.versions import Versions
from fairlead.registry.visibility import current_access
from fairlead.serving.desired import DELETING
from fairlead.serving.tables import BundleRow, DeploymentRegionRow, DeploymentRow

VERSIONS_MAX = 500
"""How many versions one answer holds at most."""

NodeKind = Literal["run", "commit", "feature-service", "snapshot", "version", "bundle", "alias", "deployment"]
Key = tuple[str, int]
_ASKED_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A thing of the graph. `id` is its kind, a colon and its name."""

    id: str
    kind: NodeKind
    name: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """That `target` was made of, or runs, `source`."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The graph around what was asked for. `is_whole` is False where there are more versions than one answer holds."""

    roots: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageQuestion:
    """From where lineage is asked: exactly one of these."""

    version: str | None = None
    snapshot: str | None = None
    bundle: str | None = None
    run: str | None = None
    commit: str | None = None


class Lineages:
    """Answers where things came from and where they went."""

    def __init__(self, database: Database, versions: Versions) -> None:
        self._database = database
        self._versions = versions

    def ask(self, caller: Caller, question: LineageQuestion) -> Lineage:
        """The graph around a version, snapshot, bundle, run or commit.

        Raises:
            InvalidInput: unless exactly one is asked about, or its form is wrong.
            NotFound: if there is no such thing.
        """
        asked = [name for name in LineageQuestion.__dataclass_fields__ if getattr(question, name) is not None]
        if len(asked) != 1:
            raise InvalidInput(
                "Lineage is asked from one end.", hint="Give one of: version, snapshot, bundle, run, commit."
            )
        if question.version is not None:
            name = parse_model_reference(question.version).name
            number = self._versions.resolve(caller, question.version).version.version
            with self._database.read() as session:
                graph = _Graph(session, caller.workspace_id)
                roots = graph.load(and_(RegisteredModelRow.name == name, ModelVersionRow.version == number))
                return graph.around(roots, [graph.id_of(key) for key in roots])
        with self._database.read() as session:
            graph = _Graph(session, caller.workspace_id)
            root, of_versions = graph.find(question)
            return graph.around(graph.load(of_versions), [root])


@dataclass(slots=True)
class _Graph:
    session: Session
    workspace_id: str
    versions: dict[Key, tuple[RegisteredModelRow, ModelVersionRow]] = field(
        default_factory=dict[Key, tuple[RegisteredModelRow, ModelVersionRow]]
    )
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    edges: dict[tuple[str, str], Edge] = field(default_factory=dict[tuple[str, str], Edge])
    is_whole: bool = True

    def find(self, question: LineageQuestion) -> tuple[str, ColumnElement[bool]]:
        """The node that is asked about, and which versions are next to it."""
        if question.snapshot is not None:
            digest = parse_digest(question.snapshot)
            is_of = ModelVersionRow.snapshot_digest == digest
            return self.require(self.snapshot(digest), is_of, what=f"snapshot {digest}"), is_of
        if question.bundle is not None:
            digest = parse_digest(question.bundle)
            rows = self.session.scalars(
                select(BundleRow).where(BundleRow.workspace_id == self.workspace_id, BundleRow.digest == digest)
            ).all()
            if not rows:
                raise NotFound(
                    f"There is no bundle {digest}.", hint="Ask from the other end: fairlead lineage NAME/VERSION"
                )
            built = tuple_(ModelVersionRow.model_id, ModelVersionRow.version)
            return self.add("bundle", digest, {}), built.in_([(row.model_id, row.version) for row in rows])
        if question.run is not None:
            run = parse_text(question.run, what="run", max_length=500)
            is_of = ModelVersionRow.run_id == run
            return self.require(self.add("run", run, {}), is_of, what=f"run {run!r}"), is_of
        commit = parse_text(question.commit or "", what="commit", max_length=255)
        is_of = ModelVersionRow.code_commit == commit
        return self.require(self.add("commit", commit, {}), is_of, what=f"commit {commit!r}"), is_of

    def require(self, root: str, is_of: ColumnElement[bool], *, what: str) -> str:
        """A node that something is known of: a version that names it, or a snapshot that was taken.

        Snapshots are the workspace's: who sees some models only sees those that a version of theirs names.
        """
        mine = ModelVersionRow.workspace_id == self.workspace_id
        access = current_access()
        is_narrowed = access is not None and access.narrowed is not None
        is_known = (not is_narrowed and self.nodes[root].facts) or self.session.scalar(
            select(ModelVersionRow.version).where(mine, is_of).limit(1)
        )
        if not is_known:
            raise NotFound(f"No version was made of the {what}.", hint="Say so at registration.")
        return root

    def around(self, roots: Sequence[Key], named: Sequence[str]) -> Lineage:
        """Follow the roots' versions up to all that they came from, and down to all that came of them."""
        self._follow_parents(roots)
        self._follow_children(roots)
        for model, row in list(self.versions.values()):
            self._add_version(model, row)
        self._add_serving()
        return Lineage(
            roots=tuple(named),
            nodes=tuple(sorted(self.nodes.values(), key=lambda node: node.id)),
            edges=tuple(sorted(self.edges.values(), key=lambda edge: (edge.source, edge.target))),
            is_whole=self.is_whole,
        )

    def load(self, condition: ColumnElement[bool]) -> list[Key]:
        """Take versions into the graph; the keys of those that were not in it."""
        room = VERSIONS_MAX - len(self.versions)
        found = self.session.execute(
            select(RegisteredModelRow, ModelVersionRow)
            .join(
                ModelVersionRow,
                and_(
                    ModelVersionRow.workspace_id == RegisteredModelRow.workspace_id,
                    ModelVersionRow.model_id == RegisteredModelRow.id,
                ),
            )
            .where(RegisteredModelRow.workspace_id == self.workspace_id, condition)
            .order_by(RegisteredModelRow.name, ModelVersionRow.version)
            .limit(VERSIONS_MAX + 1)
        ).all()
        fresh = [(model, row) for model, row in found if (row.model_id, row.version) not in self.versions]
        self.is_whole = self.is_whole and len(fresh) <= room
        for model, row in fresh[:room]:
            self.versions[row.model_id, row.version] = (model, row)
        return [(row.model_id, row.version) for _, row in fresh[:room]]

    def id_of(self, key: Key) -> str:
        """The id of a version's node."""
        model, row = self.versions[key]
        return f"version:{model.name}/{row.version}"

    def snapshot(self, digest: str) -> str:
        """The node of a snapshot, below that of its feature service."""
        row = self.session.scalars(
            select(SnapshotRow)
            .where(SnapshotRow.workspace_id == self.workspace_id, SnapshotRow.digest == digest)
            .order_by(SnapshotRow.id)
            .limit(1)
        ).one_or_none()
        facts = {} if row is None else {"service": row.service, "as_of": row.as_of}
        node = self.add("snapshot", digest, facts)
        if row is not None:
            self.link(self.add("feature-service", row.service, {"digest": row.service_digest}), node, "data of")
        return node

    def add(self, kind: NodeKind, name: str, facts: Mapping[str, Any]) -> str:
        """A node, once; what is known of it may come later."""
        node_id = f"{kind}:{name}"
        known = self.nodes.get(node_id)
        if known is None or (facts and not known.facts):
            self.nodes[node_id] = Node(id=node_id, kind=kind, name=name, facts=dict(facts))
        return node_id

    def link(self, source: str, target: str, relation: str) -> None:
        """An edge, once."""
        self.edges.setdefault((source, target), Edge(source=source, target=target, relation=relation))

    def _follow_parents(self, keys: Sequence[Key]) -> None:
        waiting = list(keys)
        while waiting:
            parents = {
                (model_id, parent)
                for model_id, version in waiting
                if (parent := self.versions[model_id, version][1].parent_version) is not None
            }
            waiting = [each for part in _parts(sorted(parents)) for each in self.load(_is_one_of(part))]

    def _follow_children(self, keys: Sequence[Key]) -> None:
        waiting = list(keys)
        while waiting:
            waiting = [each for part in _parts(waiting) for each in self.load(_is_child_of(part))]

    def _add_version(self, model: RegisteredModelRow, row: ModelVersionRow) -> None:
        facts = {
            "state": row.state,
            "digest": row.artifact_digest,
            "created_at": row.created_at,
            "is_deleted": row.deleted_at is not None,
        }
        node = self.add("version", f"{model.name}/{row.version}", facts)
        if row.run_id is not None:
            self.link(self.add("run", row.run_id, {"link": row.run_link} if row.run_link else {}), node, "trained")
        if row.code_commit is not None:
            self.link(self.add("commit", row.code_commit, {}), node, "code of")
        if row.snapshot_digest is not None:
            self.link(self.snapshot(row.snapshot_digest), node, "trained on")
        elif row.feature_service is not None:
            service = self.add("feature-service", row.feature_service, {"digest": row.feature_service_digest})
            self.link(service, node, "features of")
        if row.parent_version is not None and (row.model_id, row.parent_version) in self.versions:
            self.link(f"version:{model.name}/{row.parent_version}", node, "parent of")

    def _add_serving(self) -> None:
        for part in _parts(list(self.versions)):
            aliases = select(AliasRow).where(
                AliasRow.workspace_id == self.workspace_id, tuple_(AliasRow.model_id, AliasRow.version).in_(part)
            )
            for alias in self.session.scalars(aliases):
                key = (alias.model_id, cast("int", alias.version))
                model = self.versions[key][0]
                self.link(self.id_of(key), self.add("alias", f"{model.name}@{alias.name}", {}), "held by")
            bundles = select(BundleRow).where(
                BundleRow.workspace_id == self.workspace_id,
                BundleRow.digest.is_not(None),
                tuple_(BundleRow.model_id, BundleRow.version).in_(part),
            )
            for bundle in self.session.scalars(bundles):
                node = self.add("bundle", cast("str", bundle.digest), {"recipe": bundle.recipe, "state": bundle.state})
                self.link(self.id_of((bundle.model_id, bundle.version)), node, "built into")
            self._add_deployments(part)

    def _add_deployments(self, part: Sequence[Key]) -> None:
        query = (
            select(DeploymentRow, DeploymentRegionRow)
            .join(
                DeploymentRegionRow,
                and_(
                    DeploymentRegionRow.workspace_id == DeploymentRow.workspace_id,
                    DeploymentRegionRow.deployment_id == DeploymentRow.id,
                ),
            )
            .where(
                DeploymentRow.workspace_id == self.workspace_id,
                DeploymentRow.state != DELETING,
                tuple_(DeploymentRow.model_id, DeploymentRegionRow.version).in_(part),
            )
            .order_by(DeploymentRow.name, DeploymentRegionRow.region)
        )
        regions: dict[str, dict[str, Any]] = {}
        for deployment, region in self.session.execute(query):
            key = (deployment.model_id, cast("int", region.version))
            facts = regions.setdefault(deployment.name, {"environment": deployment.environment, "regions": {}})
            facts["regions"][region.region] = f"{region.version} {region.state}"
            node = self.add("deployment", deployment.name, facts)
            self.nodes[node] = Node(id=node, kind="deployment", name=deployment.name, facts=facts)
            source = f"bundle:{region.bundle_digest}" if region.bundle_digest else self.id_of(key)
            self.link(source if source in self.nodes else self.id_of(key), node, "run by")


def _is_one_of(keys: Sequence[Key]) -> ColumnElement[bool]:
    return tuple_(ModelVersionRow.model_id, ModelVersionRow.version).in_(keys)


def _is_child_of(keys: Sequence[Key]) -> ColumnElement[bool]:
    return or_(
        *(
            and_(ModelVersionRow.model_id == model_id, ModelVersionRow.parent_version == version)
            for model_id, version in keys
        )
    )


def _parts(keys: Sequence[Key]) -> Iterable[Sequence[Key]]:
    return (keys[start : start + _ASKED_AT_ONCE] for start in range(0, len(keys), _ASKED_AT_ONCE))
