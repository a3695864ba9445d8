from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from fairlead.serving.bundled.model_runner import InvalidRows, ModelNotLoadable, load_model
from tests.serving.models import COLUMNS, expected, write_model

WEIGHTS = (0.5, -0.25, 0.125)
ROW = {"radius": 1.0, "texture": 2.0, "age": 3.0}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = list(sys.path)
    yield write_model(tmp_path, *WEIGHTS)
    sys.path[:] = path
    sys.modules.pop("tiny_head", None)


def test_a_model_with_its_own_loader_predicts_in_the_order_of_its_signature(folder: Path) -> None:
    model = load_model(folder)
    assert model.loaded_with == "loader_module"
    assert [column.name for column in model.columns or ()] == list(COLUMNS)
    answers = model.predict([ROW, dict(reversed(ROW.items()))])
    assert answers == pytest.approx([expected((1, 2, 3), *WEIGHTS)] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": "wide"}, "Row 1: column 'radius' wants double, got 'wide'"),
        ({"radius": True}, "wants double"),
        ({"height": 1.0}, "Row 1 has a column 'height'"),
    ],
)
def test_a_row_that_does_not_fit_is_named(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRows, match=message):
        load_model(folder).predict([ROW, ROW | change])


def test_a_missing_column_is_named_and_a_missing_value_is_not_a_number(folder: Path) -> None:
    model = load_model(folder)
    with pytest.raises(InvalidRows, match="Row 0 misses the column 'age'"):
        model.predict([{"radius": 1.0, "texture": 2.0}])
    assert model.predict([ROW | {"age": None}]) == pytest.approx([expected((1, 2, 0), *WEIGHTS)])


def write_sklearn(folder: Path, serialization: str) -> Path:
    model: Any = LogisticRegression()
    model.fit(np.array([[0.0], [1.0]]), np.array([0, 1]))
    if serialization == "skops":
        skops.io.dump(model, folder / "model.bin")
    else:
        (folder / "model.bin").write_bytes(pickle.dumps(model))
    described = {
        "flavors": {
            "sklearn": {"pickled_model": "model.bin", "serialization_format": serialization},
            "python_function": {"loader_module": "mlflow.sklearn", "predict_fn": "predict_proba"},
        },
        "signature": {"inputs": json.dumps([{"type": "double", "name": "x", "required": True}])},
    }
    (folder / "MLmodel").write_text(json.dumps(described))
    return folder


@pytest.mark.filterwarnings("ignore:X has feature names")
def test_a_scikit_learn_model_saved_as_skops_needs_no_mlflow(tmp_path: Path) -> None:
    model = load_model(write_sklearn(tmp_path, "skops"))
    assert model.loaded_with == "sklearn"
    ((low, high),) = model.predict([{"x": 1.0}])
    assert math.isclose(low + high, 1)


def test_a_pickle_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    folder = write_sklearn(tmp_path, "cloudpickle")
    with pytest.raises(ModelNotLoadable, match="saved with cloudpickle"):
        load_model(folder)
    assert load_model(folder, allows_pickle=True).loaded_with == "sklearn"


def test_a_model_that_only_mlflow_can_load_says_so_where_mlflow_is_missing(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(json.dumps({"flavors": {"python_function": {"loader_module": "mlflow.torch"}}}))
    script = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from pathlib import Path\n"
        "from fairlead.serving.bundled.model_runner import load_model\n"
        f"load_model(Path({str(tmp_path)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ModelNotLoadable" in result.stderr
    assert "loads through MLflow, which is not installed here" in result.stderr


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoadable, match="no MLmodel file"):
        load_model(tmp_path)
