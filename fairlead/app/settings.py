"""The server's settings: one typed object, read once, passed down."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class ServerSettings(BaseSettings):
    """Settings of `fairlead server` and `fairlead worker`, from variables that begin with `FAIRLEAD_`."""

    model_config = SettingsConfigDict(env_prefix="FAIRLEAD_", env_nested_delimiter="__", extra="ignore")

    home: Path = Field(
        default=Path("~/.fairlead"),
        description="Folder of the server's own files: embedded database, online stores, deployments, caches, keys.",
    )
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="Metadata database: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME; none: SQLite in the home.",
    )
    workspace: str = Field(default="default", description="Workspace that is made at the first start.")
    owner: str = Field(default="owner", description="Principal of the first token.")
    jurisdiction: str = Field(
        default="unrestricted",
        description="Where the metadata database itself is, as a residency class; restricted statistics stay out of others.",
    )
    lease: timedelta = Field(
        default=timedelta(seconds=30), description="How long a worker holds work between renewals."
    )
    worker_threads: int = Field(default=2, ge=1, le=64, description="How many pieces of work one worker does at once.")
    idle_exit: timedelta = Field(
        default=timedelta(minutes=15), description="The embedded server leaves after this long without a call or work."
    )
    feature_source_roots: Annotated[list[Path] | None, NoDecode] = Field(
        default=None,
        description="Local folders that feature sources may lie in, separated by colons; none: any (embedded), none at all (server).",
    )
    trusted_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list[str],
        description="Host names that requests may be addressed to, separated by commas, beside loopback names.",
    )
    max_body_bytes: int = Field(default=64 * 2**20, description="Largest request body that is read.")
