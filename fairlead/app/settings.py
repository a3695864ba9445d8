"""The server's settings: one typed object, read once, passed down."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from fairlead.core.cloud_hosts import CloudHosts
from fairlead.core.config import read_config
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput
from fairlead.core.outbound import OutboundRules
from fairlead.serving.image_rules import ImageRules
from fairlead.serving.recipe import BundleRules, check_base_image
from fairlead.serving.targets import TargetRules


class ServerSettings(BaseSettings):
    """Settings of `fairlead server` and `fairlead worker`: variables that begin with `FAIRLEAD_`, or a TOML file."""

    model_config = SettingsConfigDict(env_prefix="FAIRLEAD_", env_nested_delimiter="__", extra="ignore")

    home: Path = Field(
        default=Path("~/.fairlead"),
        description="Folder of the server's own files: embedded database, online stores, deployments, caches, keys.",
    )
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="Metadata database, sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME; none: in the home.",
    )
    workspace: str = Field(default="default", description="Workspace that is made at the first start.")
    jurisdiction: str | None = Field(
        default=None,
        description="Jurisdiction of the metadata database, such as EU: no statistics of data that must stay "
        "elsewhere are kept in it. None: those of unrestricted data alone are.",
    )
    owner: str = Field(default="owner", description="Principal of the first token.")
    signing_key_file: Annotated[list[Path], NoDecode] = Field(
        default_factory=list[Path],
        description="Files of Ed25519 private keys (32 raw bytes), separated by colons: the first one signs refs and "
        "copies of the record, all of them are believed. None: one in the home. Servers and workers with different "
        "homes need the same ones.",
    )
    key_file: Annotated[list[Path], NoDecode] = Field(
        default_factory=list[Path],
        description="Files of 32 random bytes that wrap encryption keys, separated by colons: the first one wraps, all "
        "of them unwrap. None: keys are wrapped by a cloud's KMS, or there are none.",
    )
    lease: timedelta = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        description="How long a worker holds work between renewals, at least a second.",
    )
    worker_threads: int = Field(default=4, ge=1, le=64, description="How many copies one worker makes at once.")
    copy_memory_bytes: int = Field(
        default=512 * 2**20,
        ge=2**20,
        description="Most that the copies of one worker hold in memory together; more of them wait.",
    )
    engine: Literal["local", "ray"] = Field(
        default="local", description="What makes copies: this process, or the Ray cluster of the worker's region."
    )
    ray_address: str | None = Field(
        default=None,
        description="Ray cluster for the engine `ray`, such as HOST:6379; none: one of this machine alone.",
    )
    scrub_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Within how many days everything at every location is read again, one slice a day.",
    )
    collect_every: timedelta = Field(
        default=timedelta(hours=6),
        ge=timedelta(minutes=1),
        description="How often what nothing refers to is looked for, and goes on by one step if it has aged.",
    )
    collect_grace: timedelta = Field(
        default=timedelta(hours=24),
        ge=timedelta(hours=2),
        description="How long an object that nothing refers to stays in each of two steps before it is deleted; longer "
        "than an upload's hour, and than anybody reads through an older layout.",
    )
    repack_below: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Packs of which less than this share is still used are rewritten; 0: none.",
    )
    idle_exit: timedelta = Field(
        default=timedelta(minutes=15),
        gt=timedelta(0),
        description="The embedded server leaves after this long without a call or work.",
    )
    region: str | None = Field(
        default=None,
        max_length=63,
        description="Region that this server runs in, such as aws:us-east-1: rows that are pushed to it are taken "
        "there. None: it takes none that are under a residency class; the embedded server stands for every region.",
    )
    feature_log_rows: int = Field(
        default=100_000,
        ge=1,
        le=10_000_000,
        description="Pushed rows of a view that are sealed at once, as a segment that goes to other regions.",
    )
    feature_log_after: timedelta = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        description="How long a pushed row waits for others at most until it is sealed.",
    )
    feature_source_roots: Annotated[list[Path] | None, NoDecode] = Field(
        default=None,
        description="Local folders that feature sources may lie in, separated by colons. None: any for the embedded "
        "server, none at all for others.",
    )
    feature_online_engine: SecretStr = Field(
        default=SecretStr("sqlite"),
        description="What keeps online stores: `sqlite` (files in the home) or JSON with a type and its options, for "
        'every region or by region: {"type": "redis", "url": "redis://HOST:6379/0"}. Servers and workers of a region '
        "need the same.",
    )
    feature_connections: dict[str, SecretStr] = Field(
        default_factory=dict[str, SecretStr],
        description="Addresses, with their passwords, of the databases that feature sources name: a JSON object such "
        'as {"default": "postgresql://USER:PASSWORD@HOST/NAME"}, or a TOML table. Give the users the right to read '
        "alone: whoever may apply definitions reads what they may.",
    )
    feature_query_timeout: timedelta = Field(
        default=timedelta(hours=1),
        gt=timedelta(0),
        description="How long the database of a feature source may take over its answer.",
    )
    trusted_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list[str],
        description="Host names that requests may be addressed to, separated by commas, beside loopback names.",
    )
    tracking_hosts: Annotated[list[str] | None, NoDecode] = Field(
        default=None,
        description="Hosts, such as mlflow.example.com, mlflow:5000 or *.example.com, separated by commas, of MLflow "
        "tracking servers that versions may be brought from. None: any that an admin names, but no link-local address. "
        "Credentials of workers go to hosts that are listed by name alone.",
    )
    bundle_base_image: str | None = Field(
        default=None,
        description="Base image of bundles, named by digest: NAME@sha256:DIGEST. None: a bundle names none.",
    )
    bundle_python: Literal["3.11", "3.12", "3.13", "3.14"] = Field(
        default="3.11", description="Python of bundles whose version does not say which one it was made with."
    )
    allow_pickle: bool = Field(
        default=False,
        description="Whether bundles may hold models that are pickles, which run code when they are opened, where a "
        "model's own policy says nothing.",
    )
    package_index: SecretStr | None = Field(
        default=None,
        description="URL of the package index that bundles are locked and tested from. None: the one that uv is "
        "configured for (PyPI). `offline`: none is asked, and this release's own lock and uv's cache have to do.",
    )
    instance_type: str | None = Field(
        default=None,
        max_length=63,
        description="Type of instance that this worker runs on, such as m7i.large; profiles that it takes say so.",
    )
    smoke_test_seconds: float = Field(
        default=300.0, gt=0, description="How long a bundle may take in its smoke test, once it is installed."
    )
    smoke_test_memory_bytes: int = Field(
        default=8 * 2**30, ge=2**26, description="Most memory that a bundle may take in its smoke test."
    )
    issuer_hosts: Annotated[list[str] | None, NoDecode] = Field(
        default=None,
        description="Hosts, such as login.example.com or *.example.com, separated by commas, that keys of identity "
        "issuers may be fetched from. None: any that an admin names, but no link-local address.",
    )
    cloud_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list[str],
        description="Hosts, such as s3.example.com or *.example.com, separated by commas, that locations may name as "
        "endpoints of stores and token services, beside the clouds' own: they are sent this server's credentials.",
    )
    deploy_folders: Annotated[list[Path] | None, NoDecode] = Field(
        default=None,
        description="Local folders that deploy targets may write to, and that may hold their git repositories, "
        "separated by colons. None: any for the embedded server, none at all for others.",
    )
    git_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list[str],
        description="Hosts, such as git.example.com or *.example.com, separated by commas, that deploy targets may "
        "push to. Credentials of workers are shown to them.",
    )
    cluster_folder: Path | None = Field(
        default=None,
        description="A folder of kubeconfigs, one for each cluster that deploy targets may name, as NAME.yaml; an "
        "empty in-cluster.yaml permits the account of the pod that this process runs in. None: no cluster.",
    )
    token_audiences: Annotated[list[str], NoDecode] = Field(
        default_factory=list[str],
        description="Audiences, separated by commas, that locations may ask the metadata service of this server's "
        "machine for tokens for, beside those of the clouds' token services.",
    )
    staging_bytes: int = Field(
        default=64 * 2**30,
        ge=1,
        description="Most that MLflow clients' uploads take of the server's disk until versions are made of them.",
    )
    webhook_hosts: Annotated[list[str] | None, NoDecode] = Field(
        default=None,
        description="Hosts that webhooks may be sent to, as HOST, HOST:PORT, *.DOMAIN or * (any public one), separated "
        "by commas. What is listed by name may be private and speak http; loopback has to be listed as such. None: any "
        "host with public addresses, by https. Credentials of workers go to hosts that are listed by name alone.",
    )
    webhook_patience: timedelta = Field(
        default=timedelta(days=5),
        ge=timedelta(minutes=1),
        description="How long a webhook may fail without one success before it is disabled.",
    )
    event_streams: int = Field(
        default=200, ge=1, description="Most event streams that one server holds open at once; more are refused."
    )
    catalog_feeds: Annotated[list[str], NoDecode] = Field(
        default_factory=list[str],
        description="Feeds of the catalog that workers refresh by and by, separated by commas: aws, azure, google, "
        "electricity-maps, watttime, file.",
    )
    catalog_refresh_every: timedelta = Field(
        default=timedelta(days=1), ge=timedelta(minutes=15), description="How often those feeds are refreshed."
    )
    catalog_file: Path | None = Field(
        default=None, description="File of figures (kind CatalogFigures) that the feed `file` reads."
    )
    catalog_endpoints: dict[str, str] = Field(
        default_factory=dict[str, str],
        description='Addresses of feeds in place of the public ones, as JSON: {"aws": "https://mirror.example.com"}.',
    )
    electricity_maps_key: SecretStr | None = Field(default=None, description="Key for the feed `electricity-maps`.")
    watttime_user: str | None = Field(default=None, description="User for the feed `watttime`.")
    watttime_password: SecretStr | None = Field(default=None, description="Password of that user.")
    google_billing_key: SecretStr | None = Field(
        default=None, description="API key for the feed `google` (Cloud Billing API)."
    )
    max_body_bytes: int = Field(default=64 * 2**20, ge=1, description="Largest request body that is read.")

    @classmethod
    def read(cls, *, home: Path | None = None) -> ServerSettings:
        """The settings of this process: the environment first, then the table `server` of the TOML file.

        A home that is given goes before both.

        Raises:
            InvalidInput: naming the variable that holds no valid value.
        """
        place = home or Path(os.environ.get("FAIRLEAD_HOME") or "~/.fairlead")
        given: dict[str, Any] = read_config(os.environ, place, "server", cls.model_fields)
        if home is not None:
            given["home"] = home
        try:
            return cls(**given)
        except (ValidationError, SettingsError) as error:
            wrong = error.errors()[0] if isinstance(error, ValidationError) else None
            name = "" if wrong is None else f" FAIRLEAD_{'__'.join(str(part) for part in wrong['loc']).upper()}"
            reason = str(error) if wrong is None else wrong["msg"]
            raise InvalidInput(
                f"The setting{name} is not valid: {reason}.", hint="See docs/reference/settings.md."
            ) from error

    @property
    def bundle_rules(self) -> BundleRules:
        """What these settings say of every bundle."""
        return BundleRules(
            base_image=self.bundle_base_image,
            python=self.bundle_python,
            allows_pickle=self.allow_pickle,
            package_index=None if self.package_index is None else self.package_index.get_secret_value(),
            test_seconds=self.smoke_test_seconds,
            test_memory_bytes=self.smoke_test_memory_bytes,
        )

    @property
    def image_rules(self) -> ImageRules:
        """What these settings say of images and profiles."""
        return ImageRules(
            cloud_hosts=self.allowed_hosts,
            package_index=self.bundle_rules.package_index,
            instance_type=self.instance_type,
        )

    @property
    def allowed_hosts(self) -> CloudHosts:
        """Where this process's own credentials may go."""
        return CloudHosts(hosts=tuple(self.cloud_hosts), audiences=tuple(self.token_audiences))

    def target_rules(self, *, is_embedded: bool) -> TargetRules:
        """What deploy targets may do; the embedded server serves its owner alone, who may write where they may."""
        return TargetRules(
            folders=None if is_embedded and self.deploy_folders is None else tuple(self.deploy_folders or ()),
            git_hosts=OutboundRules(setting="FAIRLEAD_GIT_HOSTS", hosts=tuple(self.git_hosts)),
            environ=os.environ,
            clusters=self.cluster_folder,
        )

    @property
    def folder(self) -> Path:
        """The home as an absolute path."""
        return self.home.expanduser().absolute()

    def open_database(self) -> Database:
        """The metadata database that these settings name."""
        url = self.database_url.get_secret_value()
        if not url:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Database(url or f"sqlite:///{self.folder / 'fairlead.db'}")

    @field_validator("bundle_base_image")
    @classmethod
    def _by_digest(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return check_base_image(value)
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("feature_source_roots", "deploy_folders", "key_file", "signing_key_file", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return [Path(part) for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator(
        "trusted_hosts",
        "catalog_feeds",
        "tracking_hosts",
        "issuer_hosts",
        "cloud_hosts",
        "git_hosts",
        "token_audiences",
        "webhook_hosts",
        mode="before",
    )
    @classmethod
    def _split_names(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
