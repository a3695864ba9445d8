"""Models of each flavor, saved with their own libraries, in the folders that MLflow makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.serving.bundled.model_loaders import native_flavor, pickle_in
from fairlead.serving.bundled.model_runner import InvalidRows, ModelNotLoadable, load_model

COLUMNS = ("a", "b")
ROWS = [{"a": 0.5, "b": -1.0}, {"a": -2.0, "b": 3.0}, {"a": 1.0, "b": 1.0}]
X = np.array([[row["a"], row["b"]] for row in ROWS])


def describe(folder: Path, flavor: str, config: dict[str, Any], inputs: list[dict[str, Any]] | None = None) -> Path:
    columns = [{"type": "double", "name": name, "required": True} for name in COLUMNS]
    described = {
        "flavors": {flavor: config, "python_function": {"loader_module": f"mlflow.{flavor}"}},
        "signature": {"inputs": json.dumps(inputs or columns)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("kind", ["Booster", "XGBRegressor"])
def test_xgboost_loads_its_own_format(tmp_path: Path, kind: str) -> None:
    xgboost: Any = pytest.importorskip("xgboost")
    trained: Any = xgboost.XGBRegressor(n_estimators=3, base_score=0.5).fit(X, X.sum(axis=1))
    model = trained.get_booster() if kind == "Booster" else trained
    folder = tmp_path / "model"
    cls = "xgboost.core.Booster" if kind == "Booster" else "xgboost.sklearn.XGBRegressor"
    describe(folder, "xgboost", {"data": "model.ubj", "model_class": cls})
    if kind == "Booster":
        model.feature_names = list(COLUMNS)
    model.save_model(folder / "model.ubj")
    loaded = load_model(folder)
    assert loaded.loaded_with == "xgboost"
    assert loaded.predict(ROWS) == pytest.approx(trained.predict(X).tolist())


def test_a_class_that_is_not_xgboost_s_is_not_made(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    folder = describe(tmp_path, "xgboost", {"data": "model.ubj", "model_class": "os.system"})
    with pytest.raises(ModelNotLoadable, match="no model of xgboost"):
        load_model(folder)


@pytest.mark.filterwarnings("ignore")
def test_lightgbm_loads_its_own_format(tmp_path: Path) -> None:
    lightgbm: Any = pytest.importorskip("lightgbm")
    rows = np.random.default_rng(0).normal(size=(50, 2))
    data = lightgbm.Dataset(rows, rows.sum(axis=1), feature_name=list(COLUMNS))
    model = lightgbm.train({"verbose": -1, "num_threads": 1}, data, 3)
    folder = describe(tmp_path / "model", "lightgbm", {"data": "model.lgb"})
    model.save_model(folder / "model.lgb")
    loaded = load_model(folder)
    assert loaded.loaded_with == "lightgbm"
    assert loaded.predict(ROWS) == pytest.approx(model.predict(X).tolist())


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = x · (1, 2), for any number of rows."""
    onnx: Any = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.array([[1.0], [2.0]], dtype="float32"), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", kind, [None, 2])],
        [helper.make_tensor_value_info("y", kind, [None, 1])],
        [weights],
    )
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    file.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return file


def put_onnx(folder: Path, file: Path, inputs: list[dict[str, Any]] | None = None) -> Path:
    describe(folder, "onnx", {"data": "model.onnx", "providers": ["NoSuchProvider"]}, inputs)
    (folder / "model.onnx").write_bytes(file.read_bytes())
    return folder


def test_onnx_takes_columns(tmp_path: Path, onnx_model: Path) -> None:
    loaded = load_model(put_onnx(tmp_path / "model", onnx_model))
    assert loaded.loaded_with == "onnx"
    assert loaded.predict(ROWS) == [pytest.approx([row["a"] + 2 * row["b"]]) for row in ROWS]


def test_onnx_takes_tensors_of_the_signature_s_shape(tmp_path: Path, onnx_model: Path) -> None:
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
    loaded = load_model(put_onnx(tmp_path / "bare", onnx_model, [tensor]))
    assert loaded.predict(X.tolist()) == [pytest.approx([row["a"] + 2 * row["b"]]) for row in ROWS]
    with pytest.raises(InvalidRows, match=r"Row 1: the array has the shape \[3\], not \[2\]"):
        loaded.predict([[1.0, 2.0], [1.0, 2.0, 3.0]])
    with pytest.raises(InvalidRows, match="no float32 of one shape"):
        loaded.predict([[1.0, "two"]])
    named = load_model(put_onnx(tmp_path / "named", onnx_model, [tensor | {"name": "x"}]))
    assert named.predict([{"x": [1.0, 1.0]}]) == [[3.0]]
    with pytest.raises(InvalidRows, match="misses the tensor 'x'"):
        named.predict([{"y": [1.0, 1.0]}])
    with pytest.raises(InvalidRows, match="no object of tensors"):
        named.predict([[1.0, 1.0]])


@pytest.mark.parametrize(
    ("flavors", "files", "said"),
    [
        ({"xgboost": {}}, ["model.ubj"], None),
        ({"onnx": {}}, ["model.onnx"], None),
        ({"lightgbm": {}}, ["model.lgb"], None),
        ({"lightgbm": {"model_class": "lightgbm.sklearn.LGBMClassifier"}}, ["model.pkl"], "saved with pickle"),
        ({"sklearn": {"serialization_format": "skops"}}, ["model.skops"], None),
        ({"sklearn": {"serialization_format": "cloudpickle"}}, ["model.pkl"], "saved with cloudpickle"),
        ({"transformers": {}}, ["model/model.safetensors"], None),
        ({"transformers": {}}, ["model/pytorch_model.bin"], "pytorch_model.bin, a pickle"),
        ({"pytorch": {}}, ["data/model.pt2"], None),
        ({"pytorch": {}}, ["data/model.pth"], "data/model.pth, a pickle"),
        ({"python_function": {"loader_module": "mlflow.pyfunc.model"}}, ["python_model.pkl"], "a pickle"),
        ({"python_function": {"loader_module": "mine"}}, ["data/weights.pkl"], None),
    ],
)
def test_pickles_are_told_without_opening_one(
    tmp_path: Path, flavors: dict[str, Any], files: list[str], said: str | None
) -> None:
    for each in files:
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_bytes(b"")
    found = pickle_in(tmp_path, {"flavors": flavors})
    assert found is None if said is None else said in (found or "")


def test_mlflow_loads_what_no_library_of_its_own_does() -> None:
    assert native_flavor({"sklearn": {}, "python_function": {"loader_module": "mlflow.sklearn"}}) == "sklearn"
    assert native_flavor({"onnx": {}}) == "onnx"
    assert native_flavor({"pytorch": {}, "python_function": {"loader_module": "mlflow.pytorch"}}) is None
    assert native_flavor({"python_function": {"loader_module": "mlflow.pyfunc.model"}}) is None


def test_transformers_predicts_for_bare_texts(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad")
    sizes = {"vocab_size": 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=16)
    folder = describe(
        tmp_path / "model",
        "transformers",
        {
            "task": "text-classification",
            "pipeline_model_type": "BertForSequenceClassification",
            "tokenizer_type": "BertTokenizer",
            "components": ["tokenizer"],
            "model_binary": "model",
        },
        [{"type": "string", "required": True}],
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "model")
    transformers.BertTokenizerFast(str(vocabulary)).save_pretrained(folder / "components" / "tokenizer")
    answers = load_model(folder).predict(["good", "bad bad"])
    assert [set(answer) for answer in answers] == [{"label", "score"}] * 2
