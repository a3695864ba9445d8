"""What is written as Terraform: read by people once, by python-hcl2 and Terraform itself each time.

`terraform_arguments.json` has the arguments that the modules use, and what each resource requires, as the schemas of
the providers have them (aws 6.25.0, google 6.50.0, azurerm 4.55.0): a nested object is a block, `!` marks what is
required, `[]` a block that repeats, `computed` what only the provider says.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import hcl2
import pytest

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.registry import check_settings
from fairlead.serving.kinds.terraform import KIND
from fairlead.serving.terraform.hcl import Block, Expression, to_text
from fairlead.serving.terraform.locations import Bucket, location_files
from fairlead.serving.terraform.module import TerraformSettings
from fairlead.serving.workload import ReplicaResources, Scaling, Workload
from tests.serving.golden import check_golden
from tests.serving.workloads import CPU, L4, T4, beside_former, workload

ROOT = Path(__file__).parents[2]
ARGUMENTS = ROOT / "tests/serving/terraform_arguments.json"
TERRAFORM = shutil.which("terraform")
META_ARGUMENTS = {"count", "depends_on", "for_each", "lifecycle"}

ISSUER = "https://oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
WORKER = ("system:serviceaccount:fairlead:worker",)
BUCKETS = {
    "s3": Bucket(
        location="virginia",
        region="aws:us-east-1",
        url="s3://acme-virginia/fairlead",
        issuer=ISSUER,
        subjects=WORKER,
        encryption_key="arn:aws:kms:us-east-1:123456789012:key/1234",
    ),
    "gs": Bucket(
        location="eemshaven",
        region="gcp:europe-west1",
        url="gs://acme-eemshaven/fairlead",
        issuer=ISSUER,
        subjects=WORKER,
        storage_class="NEARLINE",
        encryption_key="projects/acme/locations/europe-west1/keyRings/models/cryptoKeys/models",
    ),
    "abfs": Bucket(
        location="dublin",
        region="azure:northeurope",
        url="abfs://models/fairlead",
        issuer=ISSUER,
        subjects=WORKER,
        account="acmedublin",
    ),
}
IN_AZURE = workload("azure:northeurope", image="acme.azurecr.io/churn@sha256:" + "8c" * 32)
ON_INSTANCES = workload(resources=T4, instance_type="g4dn.xlarge", is_spot=True)
CASES: Mapping[str, tuple[Workload, TerraformSettings]] = {
    "ecs": (
        workload(),
        TerraformSettings(backend="s3", values={"vpc_id": "vpc-1", "subnet_ids": ["subnet-a", "subnet-b"]}),
    ),
    "ecs_canary": (beside_former(workload(is_spot=True)), TerraformSettings(exposure="public")),
    "ecs_instances": (ON_INSTANCES, TerraformSettings()),
    "cloud_run": (workload("gcp:europe-west1"), TerraformSettings()),
    "cloud_run_canary": (beside_former(workload("gcp:europe-west4", resources=L4)), TerraformSettings()),
    "container_apps": (IN_AZURE, TerraformSettings()),
    "container_apps_canary": (beside_former(workload("azure:eastus", resources=T4)), TerraformSettings()),
}
MORE: Mapping[str, tuple[Workload, TerraformSettings]] = {
    "ecs_fixed_arm": (
        workload(
            resources=replace(CPU, architecture="arm64"),
            scaling=Scaling(min_replicas=3, max_replicas=3),
            instance_type="m7g.large",
        ),
        TerraformSettings(launch_type="ec2"),
    ),
    "ecs_instances_canary": (beside_former(replace(ON_INSTANCES, is_spot=False)), TerraformSettings()),
    "container_apps_large": (
        workload("azure:eastus", resources=ReplicaResources(vcpus=6, memory_gib=40)),
        TerraformSettings(),
    ),
    "cloud_run_fixed": (
        workload("gcp:us-east1", scaling=Scaling(min_replicas=1, max_replicas=1), online_store=None),
        TerraformSettings(exposure="public"),
    ),
}


def rendered(given: tuple[Workload, TerraformSettings]) -> dict[str, str]:
    return {document.path: document.text for document in KIND.render(*given)}


def all_modules() -> dict[str, dict[str, str]]:
    modules = {name: rendered(given) for name, given in {**CASES, **MORE}.items()}
    return modules | {f"location_{name}": location_files(bucket) for name, bucket in BUCKETS.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_module_is_the_one_that_was_reviewed(name: str) -> None:
    check_golden(f"terraform/{name}", rendered(CASES[name]))


@pytest.mark.parametrize("name", BUCKETS)
def test_a_location_s_module_is_the_one_that_was_reviewed(name: str) -> None:
    check_golden(f"terraform/location_{name}", location_files(BUCKETS[name]))


def test_every_argument_is_one_that_the_provider_has_and_none_that_it_requires_is_missing() -> None:
    known = json.loads(ARGUMENTS.read_text(encoding="utf-8"))
    used: set[str] = set()
    for name, files in all_modules().items():
        for path, text in files.items():
            parsed: dict[str, Any] = cast("Any", hcl2).loads(text)
            for kind, body in resources_of(parsed):
                used.add(kind)
                check_arguments(f"{name}/{path}: {kind}", body, known[kind])
    assert used == set(known), "the table has resources that nothing writes"


def test_a_wrong_argument_is_found() -> None:
    known = {"name!": "string", "rule[]": {"id!": "string"}}
    check_arguments("it", {"name": "a", "rule": [{"id": "b"}]}, known)
    for wrong in ({"nam": "a"}, {}, {"name": "a", "rule": [{"di": "b"}]}):
        with pytest.raises(AssertionError):
            check_arguments("it", wrong, known)


@pytest.mark.skipif(TERRAFORM is None, reason="no terraform is installed")
def test_terraform_lays_every_file_out_just_so(tmp_path: Path) -> None:
    write_modules(tmp_path)
    finished = run_terraform(tmp_path, "fmt", "-check", "-diff", "-recursive", ".")
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.skipif(TERRAFORM is None, reason="no terraform is installed")
@pytest.mark.parametrize("name", [*CASES, *MORE, *(f"location_{name}" for name in BUCKETS)])
def test_terraform_finds_every_module_valid(tmp_path: Path, name: str) -> None:
    write_modules(tmp_path)
    finished = run_terraform(tmp_path / name, "validate", "-json", providers=tmp_path / "providers")
    answer = json.loads(finished.stdout)
    assert answer["valid"], answer["diagnostics"]


@pytest.mark.skipif(TERRAFORM is None, reason="no terraform is installed")
@pytest.mark.parametrize(
    ("there", "instead", "says"),
    [
        ("revision_mode ", "revision_modus ", "Missing required argument"),
        ("percentage      = 100", "percentage = []", "Incorrect attribute value type"),
        ("var.resource_group_name", "var.resource_group", "Reference to undeclared input variable"),
    ],
)
def test_terraform_finds_what_is_wrong(tmp_path: Path, there: str, instead: str, says: str) -> None:
    write_modules(tmp_path)
    main = tmp_path / "container_apps/main.tf"
    text = main.read_text(encoding="utf-8")
    assert there in text
    main.write_text(text.replace(there, instead), encoding="utf-8")
    answer = json.loads(run_terraform(main.parent, "validate", "-json", providers=tmp_path / "providers").stdout)
    assert says in {each["summary"] for each in answer["diagnostics"]}


def test_equal_workloads_make_equal_files() -> None:
    assert all_modules() == all_modules()
    assert rendered(
        (replace(workload(), variables={"GREETING": workload().variables["GREETING"]}), TerraformSettings())
    )


def test_text_of_others_is_never_a_template() -> None:
    text = to_text([("locals", Block({"a": '${file("/etc/passwd")} %{ if true } "\n\\', "b": Expression("var.a")}))])
    assert '"$${file(\\"/etc/passwd\\")} %%{ if true } \\"\\n\\\\"' in text
    assert "b = var.a" in text


@pytest.mark.skipif(TERRAFORM is None, reason="no terraform is installed")
def test_terraform_reads_every_text_as_it_is(tmp_path: Path) -> None:
    texts = [chr(code) for code in range(1, 0x250)]
    texts += [
        "",
        "${",
        "%{",
        "$${",
        "$$${x}",
        "%%{if}",
        "$",
        "a$",
        '"${"',
        "\\${x}",
        "\\\\n",
        "日本語",
        "🚢",
        "a\u0301",
        "\ufeff",
    ]
    (tmp_path / "main.tf").write_text(to_text([("locals", Block({"texts": texts}))]), encoding="utf-8")
    finished = run_terraform(tmp_path, "console", given="base64encode(jsonencode(local.texts))\n")
    # NFC is how Terraform keeps texts.
    assert json.loads(base64.b64decode(finished.stdout.strip().strip('"'))) == [
        unicodedata.normalize("NFC", text) for text in texts
    ]


@pytest.mark.parametrize("region", ["gcp:europe-west1", "azure:northeurope"])
def test_what_a_revision_runs_makes_another_name_where_revisions_cannot_change(region: str) -> None:
    def revision(each: Workload) -> str:
        line = next(
            line
            for line in rendered((each, TerraformSettings()))["main.tf"].splitlines()
            if "revision" in line and "v8-" in line
        )
        return line.split('"')[1]

    first = revision(workload(region))
    assert revision(replace(workload(region), labels={})) == first
    assert revision(replace(workload(region), scaling=Scaling(min_replicas=3, max_replicas=9))) != first
    assert revision(replace(workload(region), variables={})) != first


def test_on_ecs_more_replicas_are_no_other_revision() -> None:
    def resources(scaling: Scaling) -> list[str]:
        lines = rendered((workload(scaling=scaling), TerraformSettings()))["main.tf"].splitlines()
        return [line for line in lines if line.startswith("resource")]

    few, many = (
        Scaling(min_replicas=least, max_replicas=most, requests_per_second_per_replica=40.0)
        for least, most in ((2, 6), (3, 9))
    )
    assert resources(few) == resources(many)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (workload(image=None), "has no image"),
        (workload("gcp:europe-west1", is_spot=True), "no spot capacity"),
        (workload("azure:eastus", is_spot=True), "no spot capacity"),
        (workload("gcp:europe-west1", resources=T4), "one L4 and no other"),
        (workload("azure:eastus", resources=L4), "T4 or A100-80"),
        (workload("gcp:europe-west1", resources=replace(CPU, architecture="arm64")), "no machines of arm64"),
        (workload(resources=replace(T4, accelerator_share=0.5), instance_type="g4dn.xlarge"), "shares no accelerator"),
        (workload(resources=T4), "Nothing says which instances"),
        (workload(resources=ReplicaResources(vcpus=32, memory_gib=64)), "16 vCPUs and 120 GiB"),
        (workload("edge:shop"), "No Terraform is written for edge:shop"),
    ],
)
def test_what_a_platform_has_no_words_for_is_refused(given: Workload, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        rendered((given, TerraformSettings()))


def test_a_value_for_no_variable_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no variable 'vpc'") as refused:
        rendered((workload(), TerraformSettings(values={"vpc": "vpc-1"})))
    assert "vpc_id" in (refused.value.hint or "")
    with pytest.raises(InvalidInput):
        check_settings(TerraformSettings, {"bakcend": "s3"}, what="settings")


@pytest.mark.parametrize(
    "wrong",
    [
        {"region": "gcp:europe-west1"},
        {"url": "file:///srv/models"},
        {"issuer": "http://issuer.example.com"},
        {"subjects": ()},
    ],
)
def test_a_bucket_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        location_files(replace(BUCKETS["s3"], **wrong))


def resources_of(parsed: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in parsed.get("resource", []):
        for kind, named in each.items():
            for body in named.values():
                yield kind.strip('"'), body


def check_arguments(where: str, body: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    plain = {name.rstrip("[]!"): kind for name, kind in known.items()}
    required = {name.rstrip("[]!") for name in known if "!" in name}
    used = {name.strip('"') for name in body if not name.startswith("__")} - META_ARGUMENTS
    settable = {name for name, kind in plain.items() if not str(kind).startswith("computed")}
    assert used <= settable, (where, used - settable)
    assert required <= used, (where, required - used)
    for name, value in body.items():
        inner: Any = plain.get(name.strip('"'))
        if isinstance(inner, dict):
            for each in cast("list[dict[str, Any]]", value if isinstance(value, list) else [value]):
                check_arguments(f"{where}.{name}", each, cast("dict[str, Any]", inner))


def write_modules(folder: Path) -> None:
    for name, files in all_modules().items():
        (folder / name).mkdir()
        for path, text in files.items():
            (folder / name / path).write_text(text, encoding="utf-8")
    providers = folder / "providers"
    providers.mkdir()
    overrides = ""
    for provider in ("aws", "azurerm", "google"):
        program = providers / f"terraform-provider-{provider}"
        script = ROOT / "tests/servers/terraform_provider.py"
        program.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" "{script}" "{ARGUMENTS}" {provider}\n', encoding="utf-8"
        )
        program.chmod(0o755)
        overrides += f'"hashicorp/{provider}" = "{providers}"\n'
    configuration = f"disable_checkpoint = true\nprovider_installation {{\ndev_overrides {{\n{overrides}}}\n}}\n"
    (providers / "terraformrc").write_text(configuration, encoding="utf-8")


def run_terraform(
    folder: Path, *arguments: str, providers: Path | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TF_CLI_CONFIG_FILE": os.devnull if providers is None else str(providers / "terraformrc"),
        "TF_DISABLE_PLUGIN_TLS": "1",
        "CHECKPOINT_DISABLE": "1",
    }
    return subprocess.run(
        [cast("str", TERRAFORM), *arguments],
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
