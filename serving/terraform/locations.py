"""A location's bucket, and the identity by which workers open it without a key.

Workers have tokens of an OpenID Connect issuer (a cluster's, say). The cloud is told to trust that issuer for certain
subjects, and to let them read and write this bucket's prefix and nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.names import platform_name
from fairlead.serving.terraform.hcl import (
    Block,
    Body,
    Call,
    Expression,
    Named,
    Value,
    output,
    quote,
    resource,
    to_text,
    variable,
)
from fairlead.serving.terraform.providers import versions_file

_CLOUD_OF_SCHEME = {"s3": "aws", "gs": "gcp", "abfs": "azure"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What there should be for one location. `account` is Azure's storage account; other clouds have none."""

    location: str
    region: str
    url: str
    issuer: str
    subjects: tuple[str, ...]
    account: str | None = None
    storage_class: str | None = None
    encryption_key: str | None = None

    @property
    def name(self) -> str:
        """The bucket, or Azure's container."""
        return urlsplit(self.url).netloc

    @property
    def prefix(self) -> str:
        """Where the location's objects begin; empty for a location that has the whole bucket."""
        return urlsplit(self.url).path.strip("/")

    @property
    def place(self) -> str:
        """The region in the cloud's own words."""
        return self.region.partition(":")[2]


def location_files(bucket: Bucket) -> dict[str, str]:
    """The files of a root module, by name: the bucket, who may use it, and the command that adds the location.

    Raises:
        InvalidInput: if region and URL are of two clouds, the issuer is no https address, or something is missing.
    """
    cloud = _CLOUD_OF_SCHEME.get(urlsplit(bucket.url).scheme)
    if cloud is None or not bucket.name or bucket.region.partition(":")[0] != cloud:
        raise InvalidInput(
            f"{bucket.url!r} is no bucket of the cloud of {bucket.region!r}.",
            hint="Write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or abfs://CONTAINER/PREFIX.",
        )
    if urlsplit(bucket.issuer).scheme != "https" or not bucket.subjects:
        raise InvalidInput("An https issuer and at least one subject say who may use the bucket.")
    if cloud == "azure" and bucket.account is None:
        raise InvalidInput("Azure keeps containers in a storage account.", hint="Name it: --option account_name=...")
    provider, main, variables, outputs = {"aws": _amazon, "gcp": _google, "azure": _azure}[cloud](bucket)
    files = {"main.tf": main, "variables.tf": variables, "outputs.tf": outputs}
    return {
        "versions.tf": versions_file(provider),
        **{name: to_text(blocks) for name, blocks in files.items() if blocks},
    }


def _add(bucket: Bucket, *identity: str, option: str | None = None) -> Named:
    """The command that adds the location, as an output; interpolations in `identity` are Terraform's."""
    words = ["fairlead", "location", "add", bucket.location, "--region", bucket.region, "--url", bucket.url]
    if option is not None:
        words += ["--option", option]
    if bucket.storage_class is not None:
        words += ["--storage-class", bucket.storage_class]
    if bucket.encryption_key is not None:
        words += ["--encryption-key", bucket.encryption_key]
    plain = quote(shlex.join(words))[1:-1]
    members = " ".join(f"--identity {member}" for member in ("kind=workload", *identity))
    return [output("add_location", "The command that adds the location.", f'"{plain} {members}"')]


def _amazon(bucket: Bucket) -> tuple[str, Named, Named, Named]:
    provider = "aws_iam_openid_connect_provider.workers"
    main: list[tuple[str, Block]] = [
        ("provider", Block({"region": bucket.place}, ("aws",))),
        resource("aws_s3_bucket", "this", {"bucket": bucket.name}),
        resource(
            "aws_s3_bucket_public_access_block",
            "this",
            {
                "bucket": Expression("aws_s3_bucket.this.id"),
                "block_public_acls": True,
                "block_public_policy": True,
                "ignore_public_acls": True,
                "restrict_public_buckets": True,
            },
        ),
        resource(
            "aws_s3_bucket_lifecycle_configuration",
            "this",
            {
                "bucket": Expression("aws_s3_bucket.this.id"),
                "rule": Block(
                    {
                        "id": "unfinished-uploads",
                        "status": "Enabled",
                        "filter": Block({}),
                        "abort_incomplete_multipart_upload": Block({"days_after_initiation": 7}),
                    }
                ),
            },
        ),
        resource(
            "aws_iam_openid_connect_provider",
            "workers",
            {
                "count": Expression("var.oidc_provider_arn == null ? 1 : 0"),
                "url": bucket.issuer,
                "client_id_list": ["sts.amazonaws.com"],
            },
        ),
        (
            "locals",
            Block({"oidc_provider_arn": Expression(f"coalesce(var.oidc_provider_arn, one({provider}[*].arn))")}),
        ),
        resource(
            "aws_iam_role",
            "workers",
            {
                "name": platform_name(f"fairlead-{bucket.location}", longest=64),
                "description": f"Workers of Fairlead at the location {bucket.location}.",
                "assume_role_policy": Call("jsonencode", _amazon_trust(bucket)),
            },
        ),
        resource(
            "aws_iam_role_policy",
            "workers",
            {
                "name": "bucket",
                "role": Expression("aws_iam_role.workers.name"),
                "policy": Call("jsonencode", _amazon_policy(bucket)),
            },
        ),
    ]
    variables = [
        variable(
            "oidc_provider_arn",
            "string",
            "The account's provider of the issuer, where it has one already; null makes one.",
            default=None,
        )
    ]
    return "aws", main, variables, _add(bucket, "role_arn=${aws_iam_role.workers.arn}")


def _amazon_trust(bucket: Bucket) -> Value:
    issuer = bucket.issuer.removeprefix("https://").rstrip("/")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": Expression("local.oidc_provider_arn")},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": list(bucket.subjects)}
                },
            }
        ],
    }


def _amazon_policy(bucket: Bucket) -> Value:
    prefix = f"{bucket.prefix}/" if bucket.prefix else ""
    listing: dict[str, Value] = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": Expression("aws_s3_bucket.this.arn"),
    }
    if prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [bucket.prefix, f"{prefix}*"]}}
    statements: list[Value] = [
        listing,
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": Expression(f'"${{aws_s3_bucket.this.arn}}/{quote(prefix)[1:-1]}*"'),
        },
    ]
    if bucket.encryption_key is not None:
        actions: Sequence[Value] = ["kms:GenerateDataKey", "kms:Decrypt"]
        statements.append({"Effect": "Allow", "Action": actions, "Resource": bucket.encryption_key})
    return {"Version": "2012-10-17", "Statement": statements}


def _google(bucket: Bucket) -> tuple[str, Named, Named, Named]:
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "name": bucket.name,
        "location": bucket.place.upper(),
        "uniform_bucket_level_access": True,
        "public_access_prevention": "enforced",
    }
    if bucket.storage_class is not None:
        body["storage_class"] = bucket.storage_class
    if bucket.encryption_key is not None:
        body["encryption"] = Block({"default_kms_key_name": bucket.encryption_key})
    account = platform_name(f"fairlead-{bucket.location}", longest=30)
    pool = "google_iam_workload_identity_pool.workers"
    main: list[tuple[str, Block]] = [
        ("provider", Block({"project": Expression("var.project"), "region": bucket.place}, ("google",))),
        ("locals", Block({"subjects": list(bucket.subjects)})),
        resource("google_storage_bucket", "this", body),
        resource("google_iam_workload_identity_pool", "workers", {"workload_identity_pool_id": account}),
        resource("google_iam_workload_identity_pool_provider", "workers", _google_provider(bucket, pool)),
        resource("google_service_account", "workers", {"account_id": account}),
        resource(
            "google_service_account_iam_member",
            "workers",
            {
                "for_each": Expression("toset(local.subjects)"),
                "service_account_id": Expression("google_service_account.workers.name"),
                "role": "roles/iam.workloadIdentityUser",
                "member": Expression(f'"principal://iam.googleapis.com/${{{pool}.name}}/subject/${{each.value}}"'),
            },
        ),
        resource(
            "google_storage_bucket_iam_member",
            "workers",
            {
                "bucket": Expression("google_storage_bucket.this.name"),
                "role": "roles/storage.objectUser",
                "member": Expression("google_service_account.workers.member"),
            },
        ),
    ]
    provider = "google_iam_workload_identity_pool_provider.workers.name"
    return (
        "google",
        main,
        [variable("project", "string", "The project that the bucket is in.")],
        _add(
            bucket,
            f"audience=//iam.googleapis.com/${{{provider}}}",
            "service_account=${google_service_account.workers.email}",
        ),
    )


def _google_provider(bucket: Bucket, pool: str) -> Body:
    return {
        "workload_identity_pool_id": Expression(f"{pool}.workload_identity_pool_id"),
        "workload_identity_pool_provider_id": "workers",
        "attribute_mapping": {"google.subject": "assertion.sub"},
        "attribute_condition": Expression('"assertion.sub in ${jsonencode(local.subjects)}"'),
        "oidc": Block({"issuer_uri": bucket.issuer}),
    }


def _azure(bucket: Bucket) -> tuple[str, Named, Named, Named]:
    place: dict[str, Value] = {
        "resource_group_name": Expression("var.resource_group_name"),
        "location": bucket.place,
    }
    identity = "azurerm_user_assigned_identity.workers"
    main: list[tuple[str, Block]] = [
        (
            "provider",
            Block(
                {
                    "subscription_id": Expression("var.subscription_id"),
                    "storage_use_azuread": True,
                    "features": Block({}),
                },
                ("azurerm",),
            ),
        ),
        ("locals", Block({"subjects": list(bucket.subjects)})),
        resource(
            "azurerm_storage_account",
            "this",
            {
                "name": bucket.account,
                **place,
                "account_tier": "Standard",
                # What has to survive the region is in another one.
                "account_replication_type": "LRS",
                "min_tls_version": "TLS1_2",
                "shared_access_key_enabled": False,
                "allow_nested_items_to_be_public": False,
            },
        ),
        resource(
            "azurerm_storage_container",
            "this",
            {"name": bucket.name, "storage_account_id": Expression("azurerm_storage_account.this.id")},
        ),
        resource(
            "azurerm_user_assigned_identity",
            "workers",
            {"name": platform_name(f"fairlead-{bucket.location}", longest=64), **place},
        ),
        resource(
            "azurerm_federated_identity_credential",
            "workers",
            {
                "for_each": Expression("toset(local.subjects)"),
                "name": Expression('"workers-${substr(sha256(each.value), 0, 8)}"'),
                "resource_group_name": Expression("var.resource_group_name"),
                "parent_id": Expression(f"{identity}.id"),
                "issuer": bucket.issuer,
                "subject": Expression("each.value"),
                "audience": ["api://AzureADTokenExchange"],
            },
        ),
        resource(
            "azurerm_role_assignment",
            "workers",
            {
                "scope": Expression("azurerm_storage_container.this.id"),
                "role_definition_name": "Storage Blob Data Contributor",
                "principal_id": Expression(f"{identity}.principal_id"),
            },
        ),
    ]
    variables = [
        variable("subscription_id", "string", "The subscription that the storage account is in."),
        variable("resource_group_name", "string", "The resource group that holds all of it."),
    ]
    members = (f"tenant_id=${{{identity}.tenant_id}}", f"client_id=${{{identity}.client_id}}")
    return "azurerm", main, variables, _add(bucket, *members, option=f"account_name={bucket.account}")
