from __future__ import annotations

from typing import Any, cast

import pytest
import typer
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from fairlead.cli.commands import command_line
from fairlead.serving.kinds.kubeflow import KIND, KubeflowSettings
from tests.serving.golden import check_golden
from tests.serving.workloads import workload

SETTINGS = KubeflowSettings(image="registry.example.com/fairlead@sha256:" + "9c" * 32, target="eks-virginia")
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
# Kubeflow Pipelines (Apache-2.0), component specification; what is not listed is refused.
COMPONENT: dict[str, Any] = {
    "type": "object",
    "required": ["implementation"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "metadata": {"type": "object", "properties": {"labels": {"type": "object"}}, "additionalProperties": False},
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": TEXT, "type": TEXT, "description": TEXT, "default": TEXT},
                "additionalProperties": False,
            },
        },
        "implementation": {
            "type": "object",
            "properties": {
                "container": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": TEXT,
                        "command": {"type": "array", "items": {"type": ["string", "object"]}},
                    },
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
    },
}


def components() -> list[dict[str, Any]]:
    return [yaml.safe_load(each.text) for each in KIND.render(workload(), SETTINGS)]


def test_components_are_what_was_read_and_what_pipelines_take() -> None:
    check_golden("kubeflow", {each.path: each.text for each in KIND.render(workload(), SETTINGS)})
    for each in components():
        Draft202012Validator(COMPONENT).validate(each)


def test_what_a_step_calls_is_a_command_of_fairlead_with_options_that_it_has() -> None:
    root: Any = typer.main.get_command(command_line())
    for each in components():
        inputs = {one["name"]: one["default"] for one in each["inputs"]}
        words = [
            word if isinstance(word, str) else inputs[word["inputValue"]]
            for word in cast("list[Any]", each["implementation"]["container"]["command"])
        ]
        group, name, *rest = words[1:]
        step = root.commands[group].commands[name]
        assert step.make_context(name, rest).params


def test_the_image_of_a_step_is_named_by_digest() -> None:
    with pytest.raises(ValidationError):
        KubeflowSettings(image="registry.example.com/fairlead:latest")
