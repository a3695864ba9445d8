"""Loads an MLflow model with the model's own library; what it gives takes a DataFrame, an array, or named arrays.

This file is copied into bundles as it is: it imports nothing of Fairlead, and no library before a model needs it. It
goes by the `MLmodel` file, in this order:

1. a `loader_module` of the model's own: its code goes on the path and `_load_pyfunc(data)` is called;
2. scikit-learn (skops), XGBoost, LightGBM, ONNX and Transformers (safetensors), each with the library itself;
3. anything else through `mlflow.pyfunc`, PyTorch too: it looks into exported programs before it opens them.

What is a pickle, which runs any code when it is opened, is refused unless `allows_pickle`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

Predict = Callable[[Any], Any]
Config = Mapping[str, Any]


class ModelNotLoadable(Exception):
    """The model cannot be loaded here; the message says what is missing."""


def load_callable(folder: Path, described: Config, *, allows_pickle: bool) -> tuple[str, Predict]:
    """What loaded the model in `folder`, and what predicts with it. This runs the model's code.

    Raises:
        ModelNotLoadable: if what loads it is missing, or it is a pickle and those are not allowed.
    """
    flavors = cast("dict[str, dict[str, Any]]", described.get("flavors") or {})
    pyfunc = flavors.get("python_function") or {}
    if pyfunc.get("code"):
        sys.path.insert(0, str(folder / str(pyfunc["code"])))
    loader = str(pyfunc.get("loader_module", ""))
    if loader and not loader.startswith("mlflow."):
        return "loader_module", _load_by_loader(folder, pyfunc, loader)
    flavor = native_flavor(flavors)
    if flavor is None:
        return "mlflow", _load_with_mlflow(folder, sorted(flavors), allows_pickle=allows_pickle)
    if (reason := pickle_in(folder, described)) and not allows_pickle:
        raise ModelNotLoadable(f"{reason} A pickle can run any code, and this bundle was built without leave for it.")
    return flavor, _LOADERS[flavor](folder, flavors[flavor], pyfunc)


def native_flavor(flavors: Mapping[str, Any]) -> str | None:
    """The flavor whose own library loads the model; None where MLflow or the model's own loader does."""
    loader = str((flavors.get("python_function") or {}).get("loader_module", ""))
    named = loader.removeprefix("mlflow.") if loader else next((each for each in flavors if each in _LOADERS), "")
    return named if named in _LOADERS and named in flavors else None


def pickle_in(folder: Path, described: Config) -> str | None:
    """A sentence that says what of the model is a pickle, by its MLmodel file and the names of its files.

    None where nothing is. A model whose own code loads it is not asked: code can do what it likes in any case.
    """
    flavors = cast("dict[str, dict[str, Any]]", described.get("flavors") or {})
    pyfunc = flavors.get("python_function") or {}
    loader = str(pyfunc.get("loader_module", ""))
    if loader and not loader.startswith("mlflow."):
        return None
    flavor = native_flavor(flavors)
    config = flavors.get(flavor or "", {})
    if flavor in {"xgboost", "onnx"}:
        return None
    if flavor == "sklearn" or (flavor == "lightgbm" and config.get("model_class", _BOOSTER) != _BOOSTER):
        how = config.get("serialization_format", "pickle")
        return None if how == "skops" else f"The {flavor} model was saved with {how}."
    if flavor == "lightgbm":
        return None
    if flavor == "transformers":
        found = sorted(each.name for each in _weights(folder, config).glob("*.bin"))
        return f"The weights are in {found[0]}, a pickle." if found else None
    names = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.suffix in _PICKLES)
    return f"The model holds {names[0]}, a pickle." if names else None


_BOOSTER = "lightgbm.basic.Booster"
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pth", ".pt", ".bin"})


def _load_by_loader(folder: Path, pyfunc: Config, loader: str) -> Predict:
    module = _import(loader, loader)
    data = folder / str(pyfunc["data"]) if pyfunc.get("data") else folder
    return cast("Predict", module._load_pyfunc(str(data)).predict)  # noqa: SLF001  (MLflow's protocol)


def _load_sklearn(folder: Path, flavor: Config, pyfunc: Config) -> Predict:
    model = _open_estimator(folder / str(flavor.get("pickled_model", "model.skops")), flavor)
    return cast("Predict", getattr(model, str(pyfunc.get("predict_fn", "predict"))))


def _open_estimator(file: Path, flavor: Config) -> Any:
    if flavor.get("serialization_format") == "skops":
        return _import("skops.io", "skops").load(file, trusted=flavor.get("skops_trusted_types") or [])
    with file.open("rb") as stream:
        return _import("cloudpickle", "cloudpickle").load(stream)


def _load_xgboost(folder: Path, flavor: Config, _: Config) -> Predict:
    xgboost = _import("xgboost", "xgboost")
    name = str(flavor.get("model_class", "xgboost.core.Booster"))
    cls = getattr(xgboost, name.rpartition(".")[2], None) if name.startswith("xgboost.") else None
    if cls is None:
        raise ModelNotLoadable(f"{name} is no model of xgboost {xgboost.__version__}.")
    model = cls()
    model.load_model(str(folder / str(flavor["data"])))
    if cls is xgboost.Booster:
        return lambda frame: model.predict(xgboost.DMatrix(frame))
    return cast("Predict", model.predict)


def _load_lightgbm(folder: Path, flavor: Config, _: Config) -> Predict:
    lightgbm = _import("lightgbm", "lightgbm")
    file = folder / str(flavor["data"])
    if flavor.get("model_class", _BOOSTER) == _BOOSTER:
        return cast("Predict", lightgbm.Booster(model_file=str(file)).predict)
    return cast("Predict", _open_estimator(file, flavor).predict)


def _load_onnx(folder: Path, flavor: Config, _: Config) -> Predict:
    runtime = _import("onnxruntime", "onnxruntime")
    wanted = cast("list[str]", flavor.get("providers") or [])
    usable = [each for each in wanted if each in runtime.get_available_providers()]
    session = runtime.InferenceSession(str(folder / str(flavor["data"])), providers=usable or ["CPUExecutionProvider"])
    types = {each.name: _ONNX_TYPES.get(each.type) for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]

    def feed(name: str, values: Any) -> Any:
        return values if types[name] is None else values.astype(types[name])

    def predict(given: Any) -> Any:
        if isinstance(given, Mapping):
            feeds = {name: feed(name, values) for name, values in cast("Mapping[str, Any]", given).items()}
        elif hasattr(given, "columns") and len(types) > 1:
            # Each column is a tensor of its own, of one value a row.
            feeds = {name: feed(name, given[name].to_numpy().reshape(-1, 1)) for name in types}
        else:
            (name,) = types
            feeds = {name: feed(name, given.to_numpy() if hasattr(given, "columns") else given)}
        answers = session.run(None, feeds)
        return answers[0] if len(names) == 1 else dict(zip(names, answers, strict=True))

    return predict


_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}


def _load_transformers(folder: Path, flavor: Config, _: Config) -> Predict:
    transformers = _import("transformers", "transformers")
    weights = _weights(folder, flavor)
    name = str(flavor["pipeline_model_type"])
    cls = getattr(transformers, name, None)
    if cls is None:
        raise ModelNotLoadable(f"{name} is no model of transformers {transformers.__version__}.")
    parts: dict[str, Any] = {}
    for part in cast("list[str]", flavor.get("components") or []):
        kind = getattr(transformers, str(flavor[f"{part}_type"]))
        parts[part] = kind.from_pretrained(folder / "components" / part, local_files_only=True)
    # Without leave no file of code that lies beside the weights is run.
    model = cls.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
    pipeline = transformers.pipeline(str(flavor["task"]), model=model, **parts)

    def predict(given: Any) -> Any:
        if hasattr(given, "columns"):
            given = given.iloc[:, 0] if len(given.columns) == 1 else given.to_dict("records")
        return pipeline(given.tolist() if hasattr(given, "tolist") else list(given))

    return predict


def _weights(folder: Path, flavor: Config) -> Path:
    return folder / str(flavor.get("model_binary", "model"))


def _load_with_mlflow(folder: Path, flavors: list[str], *, allows_pickle: bool) -> Predict:
    # MLflow looks for pickles by itself, deeper than by names.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = str(allows_pickle).lower()
    try:
        pyfunc = importlib.import_module("mlflow.pyfunc")
    except ImportError:
        raise ModelNotLoadable(
            f"A model of flavor {', '.join(flavors) or 'unknown'} loads through MLflow, which is not installed here."
        ) from None
    return cast("Predict", pyfunc.load_model(str(folder)).predict)


_LOADERS: dict[str, Callable[[Path, Config, Config], Predict]] = {
    "sklearn": _load_sklearn,
    "xgboost": _load_xgboost,
    "lightgbm": _load_lightgbm,
    "onnx": _load_onnx,
    "transformers": _load_transformers,
}


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelNotLoadable(
            f"The model needs {package}: {error}. Add it to the model's pip requirements."
        ) from error
