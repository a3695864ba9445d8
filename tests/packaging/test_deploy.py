"""The files that run Fairlead itself, Dockerfile, compose file and Helm chart, are what those who read them expect."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any, cast

import jsonschema
import kubernetes_validate
import pytest
import yaml

from fairlead.app.settings import ServerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "fairlead"
TOOLS = ROOT / ".tools" / "deploy"
SITE = TOOLS / "lib"
KUBERNETES = "1.34"
# Read by others in the containers than by Fairlead.
FOREIGN = {"PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}
POOL: dict[str, Any] = {
    "name": "frankfurt",
    "regions": ["aws:eu-central-1", "gcp:europe-west3"],
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/worker"}},
}
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example.com/fairlead", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "keyFile": {"secretName": "fairlead-keys", "key": "master.key"},
    "settings": {"FAIRLEAD_CATALOG_FEEDS": "aws", "FAIRLEAD_WORKER_THREADS": 8},
    "environmentFrom": [{"secretRef": {"name": "object-store"}}],
    "server": {"trustedHosts": ["fairlead.example.com"], "allowFromNamespaces": [{"team": "risk"}]},
    "workers": [
        POOL,
        {
            "name": "idle",
            "regions": ["azure:westeurope"],
            "replicas": 0,
            "podLabels": {"azure.workload.identity/use": "true"},
        },
    ],
    "networkPolicy": {"egressPorts": [9000]},
}
needs_tools = pytest.mark.skipif(not TOOLS.exists(), reason="needs the tools of deploy/: make install")

Instruction = tuple[str, str]


def dockerfile() -> list[Instruction]:
    """The instructions, each with its arguments on one line."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [cast("Instruction", tuple(line.split(None, 1))) for line in lines if line.strip()]


def test_the_image_runs_as_nobody_in_particular_on_a_base_that_can_be_pinned() -> None:
    found = dockerfile()
    images = [text.split()[0] for name, text in found if name == "FROM"]
    assert images == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]
    (default,) = [text.partition("=")[2] for name, text in found if name == "ARG" and text.startswith("PYTHON_IMAGE=")]
    assert ":" in default.rpartition("/")[2]
    assert not default.endswith(":latest")
    last = found[[number for number, (name, _) in enumerate(found) if name == "FROM"][-1] :]
    (user,) = [text for name, text in last if name == "USER"]
    assert user.split(":")[0].isdecimal()
    assert user.split(":")[0] != "0"
    after_user = last[[name for name, _ in last].index("USER") :]
    assert not [name for name, _ in after_user if name in {"RUN", "COPY", "ADD"}]
    assert not [name for name, _ in found if name == "ADD"]


def test_the_image_copies_what_there_is_and_nothing_else_is_sent_to_its_build() -> None:
    copied = {
        path
        for name, text in dockerfile()
        if name == "COPY" and not text.startswith("--from")
        for path in text.split()[:-1]
    }
    assert all((ROOT / path).exists() for path in copied)
    packages = {link.name for link in (ROOT / "fairlead").iterdir() if link.is_symlink()} - {"tests"}
    assert {"fairlead", "pyproject.toml", "uv.lock"} | packages <= copied
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_installs_extras_and_starts_commands_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = dockerfile()
    (extras,) = [
        text.partition("=")[2].strip('"') for name, text in found if name == "ARG" and text.startswith("EXTRAS")
    ]
    assert set(extras.split()) <= set(project["optional-dependencies"])
    (entry,) = [json.loads(text) for name, text in found if name == "ENTRYPOINT"]
    assert entry[0] in project["scripts"]
    (start,) = [json.loads(text) for name, text in found if name == "CMD"]
    parse_command(start)
    for name, text in found:
        if name == "RUN":
            assert shlex.split(text)


def parse_command(arguments: list[str]) -> None:
    """Have the command line read arguments, and do nothing with them."""
    import typer

    from fairlead.cli.commands import command_line

    command: Any = typer.main.get_command(command_line())
    context: Any = None
    rest = list(arguments)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        command = command.commands[name]
    context = command.make_context("fairlead", rest)
    assert context.params


def compose() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8")))


@needs_tools
def test_the_compose_file_is_one() -> None:
    (schema,) = SITE.glob("*/site-packages/compose/config/compose_spec.json")
    jsonschema.Draft201909Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(compose())


def test_compose_starts_fairlead_with_settings_and_commands_that_there_are_and_keeps_no_secret() -> None:
    found = compose()
    settings = {f"FAIRLEAD_{name.upper()}" for name in ServerSettings.model_fields}
    for name in ("migrations", "server", "worker"):
        service = found["services"][name]
        assert set(service["environment"]) - FOREIGN <= settings
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        parse_command([re.sub(r"\$\{[^:}]*:-([^}]*)\}", r"\1", text) for text in service["command"]])
    for service in found["services"].values():
        assert not re.search(r":latest\b", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        secrets = [
            value for key, value in service.get("environment", {}).items() if "PASSWORD" in key or "SECRET" in key
        ]
        assert all(value.startswith("${") and ":?" in value for value in secrets)
    assert {"postgres", "s3", "redis", "server", "worker"} <= set(found["services"])


SCRIPT = """
import json, sys
from helm_python import Chart, HelmError
answers = []
for values in json.loads(sys.argv[2]):
    try:
        answers.append({"files": Chart.load(sys.argv[1]).render(values=values, name="fl", namespace="ml")})
    except HelmError as error:
        answers.append({"refused": str(error)})
print(json.dumps(answers))
"""
WRONG: list[dict[str, Any]] = [
    {"image": {"repository": "fairlead", "tag": "latest"}},
    {"workers": [{"name": "Frankfurt", "regions": ["aws:eu-central-1"]}]},
    {"workers": [{"name": "frankfurt", "regions": []}]},
    {"settings": {"DATABASE": "x"}},
    {"sever": {}},
]


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """What Helm's own engine makes of the chart: with its defaults, with everything, and with values that are none."""
    command = [str(TOOLS / "bin" / "python"), "-c", SCRIPT, str(CHART), json.dumps([{}, EVERYTHING, *WRONG])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return cast("list[dict[str, Any]]", json.loads(done.stdout))


def rendered(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Every resource, hooks included."""
    assert "refused" not in answer, answer
    texts = [text for name, text in answer["files"].items() if name.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


@pytest.fixture(scope="module", params=[0, 1], ids=["defaults", "everything"])
def resources(request: pytest.FixtureRequest, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rendered(answers[request.param])


def pod_specs(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in resources if each["kind"] in {"Deployment", "Job"}]


@needs_tools
def test_every_resource_of_the_chart_is_valid(resources: list[dict[str, Any]]) -> None:
    assert resources
    for resource in resources:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    names = [(each["kind"], each["metadata"]["name"]) for each in resources]
    assert len(set(names)) == len(names)


@needs_tools
def test_every_pod_of_the_chart_is_restricted(resources: list[dict[str, Any]]) -> None:
    for pod in pod_specs(resources):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert not container["image"].endswith(":latest")
            parse_command([str(text) for text in container["args"]])


@needs_tools
def test_the_chart_sets_settings_that_there_are(resources: list[dict[str, Any]]) -> None:
    settings = {f"FAIRLEAD_{name.upper()}" for name in ServerSettings.model_fields}
    for pod in pod_specs(resources):
        for container in pod["containers"]:
            assert {each["name"] for each in container["env"]} <= settings


@needs_tools
def test_the_schema_is_brought_up_before_anything_starts(resources: list[dict[str, Any]]) -> None:
    (job,) = [each for each in resources if each["kind"] == "Job"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["db", "upgrade"]


@needs_tools
def test_each_region_has_a_pool_of_workers_with_an_identity_of_its_own(answers: list[dict[str, Any]]) -> None:
    found = {(each["kind"], each["metadata"]["name"]): each for each in rendered(answers[1])}
    account = found["ServiceAccount", "fl-worker-frankfurt"]
    assert account["metadata"]["annotations"] == POOL["serviceAccount"]["annotations"]
    deployment = found["Deployment", "fl-worker-frankfurt"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "fl-worker-frankfurt"
    assert pod["containers"][0]["args"] == ["worker", "--region", "aws:eu-central-1", "--region", "gcp:europe-west3"]
    assert found["Deployment", "fl-worker-idle"]["spec"]["replicas"] == 0
    labels = found["Deployment", "fl-worker-idle"]["spec"]["template"]["metadata"]["labels"]
    assert labels["azure.workload.identity/use"] == "true"
    assert {("PodDisruptionBudget", "fl-server"), ("NetworkPolicy", "fl")} <= found.keys()


@needs_tools
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_values_that_are_none_are_refused(number: int, answers: list[dict[str, Any]]) -> None:
    assert "schema" in answers[2 + number]["refused"]
