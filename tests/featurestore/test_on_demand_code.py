"""Functions of on-demand views make what they make in Feast, online, and their text is all that is run."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.featurestore.on_demand_code import (
    FunctionFailed,
    FunctionNotLoadable,
    InputMissing,
    OnDemandFunction,
    RequestInvalid,
    check_function,
    load_function,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

PANDAS = """
@on_demand_feature_view(sources=[cells, asked], schema=[...])
def made(inputs: pd.DataFrame) -> pd.DataFrame:
    frame = pd.DataFrame()
    frame["sum"] = inputs["radius"] + inputs["count"] * inputs["factor"]
    frame["narrow"] = inputs["cells__radius"] * inputs["factor"]
    frame["text"] = inputs["word"].str.upper()
    frame["flag"] = inputs["count"] > inputs["factor"]
    frame["key"] = inputs["patient_id"] % 7
    return frame
"""
PYTHON = """
@on_demand_feature_view(sources=[cells, asked], schema=[...], mode="python")
def made(inputs):
    rows = list(zip(inputs["radius"], inputs["count"], inputs["factor"]))
    return {
        "sum": [radius + count * factor for radius, count, factor in rows],
        "narrow": [radius * factor for radius, _, factor in rows],
        "text": [word.upper() for word in inputs["word"]],
        "flag": [count > factor for _, count, factor in rows],
        "key": [each % 7 for each in inputs["patient_id"]],
    }
"""
SINGLETON = """
def made(inputs):
    radius, count, factor = inputs["cells__radius"], inputs["count"], inputs["factor"]
    return {
        "sum": radius + count * factor,
        "narrow": radius * factor,
        "text": inputs["word"].upper(),
        "flag": count > factor,
        "key": inputs["patient_id"] % 7,
    }
"""
INPUTS = [("cells", "radius", "FLOAT"), ("cells", "count", "INT64"), ("cells", "word", "STRING")]
FEATURES = [("sum", "DOUBLE"), ("narrow", "FLOAT"), ("text", "STRING"), ("flag", "BOOL"), ("key", "INT64")]

narrow = st.floats(-1e6, 1e6, width=32)
rows = st.lists(
    st.tuples(
        narrow,
        st.integers(-(10**6), 10**6),
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5),
        st.floats(-1e3, 1e3),
        st.integers(0, 2**40),
    ),
    min_size=1,
    max_size=5,
)


def function(text: str, *, mode: str = "python", is_singleton: bool = False, **changes: Any) -> OnDemandFunction:
    members: dict[str, Any] = {
        "view": "made",
        "mode": mode,
        "is_singleton": is_singleton,
        "inputs": INPUTS,
        "request": [("factor", "DOUBLE")],
        "features": FEATURES,
        "call": load_function(text),
    }
    return OnDemandFunction(**members | changes)


def ours(made: OnDemandFunction, columns: list[list[Any]]) -> dict[str, list[Any]]:
    radius, count, word, factor, keys = columns
    inputs = {("cells", "radius"): radius, ("cells", "count"): count, ("cells", "word"): word}
    found = made.compute(inputs, {"factor": factor, "patient_id": keys}, keys=[("patient_id", "INT64")])
    return {name: column.to_pylist() for name, column in found.items()}


def feast_s(text: str, mode: str, columns: list[list[Any]], *, is_singleton: bool) -> dict[str, list[Any]]:
    """What Feast's own online path makes of the same columns, through its objects and its response."""
    from feast import Field, RequestSource, ValueType
    from feast.feature_view_projection import FeatureViewProjection
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
    from feast.type_map import python_values_to_proto_values
    from feast.types import from_value_type
    from feast.utils import _augment_response_with_on_demand_transforms as augment  # pyright: ignore[reportPrivateUsage]

    def field(name: str, kind: str) -> Any:
        return Field(name=name, dtype=from_value_type(ValueType[kind]))

    projection = FeatureViewProjection(
        name="cells",
        name_alias=None,
        desired_features=[],
        features=[field(name, kind) for _, name, kind in INPUTS],
        join_key_map={},
    )
    view = OnDemandFeatureView(
        name="made",
        sources=[projection, RequestSource(name="asked", schema=[field("factor", "DOUBLE")])],
        schema=[field(name, kind) for name, kind in FEATURES],
        mode=mode,
        singleton=is_singleton,
        udf=load_function(text),
        udf_string=text,
    )
    response: Any = GetOnlineFeaturesResponse()
    kinds = {"radius": "FLOAT", "count": "INT64", "word": "STRING", "factor": "DOUBLE", "patient_id": "INT64"}
    for (name, kind), values in zip(kinds.items(), columns, strict=True):
        response.metadata.feature_names.val.append(name)
        response.results.append(
            GetOnlineFeaturesResponse.FeatureVector(
                values=python_values_to_proto_values(values, ValueType[kind]),
                statuses=[FieldStatus.PRESENT] * len(values),
            )
        )
    asked = [*(f"cells:{name}" for _, name, _ in INPUTS), *(f"made:{name}" for name, _ in FEATURES)]
    augment(response, asked, [view], full_feature_names=False)
    found = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
    return {
        name: [getattr(each, each.WhichOneof("val")) if each.WhichOneof("val") else None for each in found[name].values]
        for name, _ in FEATURES
    }


@pytest.mark.parametrize(
    ("text", "mode"),
    [(PANDAS, "pandas"), (PYTHON, "python"), (SINGLETON, "python")],
    ids=["pandas", "python", "single"],
)
@settings(max_examples=25, deadline=None)
@given(drawn=rows)
def test_values_are_feast_s(text: str, mode: str, drawn: list[tuple[Any, ...]]) -> None:
    is_singleton = text is SINGLETON
    columns = [list(column) for column in zip(*drawn, strict=True)]
    made = ours(function(text, mode=mode, is_singleton=is_singleton), columns)
    if not is_singleton:
        assert made == feast_s(text, mode, columns, is_singleton=False)
    # Feast gives a singleton one row at a time. And no row's answer depends on the others.
    for number in range(len(drawn)):
        alone = [[column[number]] for column in columns]
        assert {name: [values[number]] for name, values in made.items()} == feast_s(
            text, mode, alone, is_singleton=is_singleton
        )


def test_a_missing_value_is_no_number_whatever_is_beside_it() -> None:
    made = function(PANDAS, mode="pandas")
    columns: list[list[Any]] = [[None, 1.5], [2, None], [None, "b"], [2.0, 3.0], [1, 2]]
    together = ours(made, columns)
    assert (together["sum"], together["narrow"], together["text"]) == ([None, None], [None, 4.5], [None, "B"])
    # Feast would give the function a column of nothing, which no number can be multiplied with.
    assert ours(made, [column[:1] for column in columns])["narrow"] == [None]
    assert ours(made, [[1.0], [None], ["a"], [None], [3]])["sum"] == [None]


def test_a_request_is_read_by_its_types() -> None:
    kinds = {"number": "DOUBLE", "moment": "UNIX_TIMESTAMP", "raw": "BYTES", "list": "FLOAT_LIST", "is": "BOOL"}
    echo = function(
        "def made(inputs):\n    return {name: inputs[name] for name in ('number', 'moment', 'raw', 'list', 'is')}",
        inputs=[],
        request=[*kinds.items()],
        features=[*kinds.items()],
    )
    given: dict[str, Any] = {"number": [1, 2.5, None], "raw": ["AAE=", None, ""], "is": [True, False, None]}
    given |= {"moment": ["2026-01-02T00:00:00Z", 0, None], "list": [[1, 2.5], [], None]}
    found = {name: column.to_pylist() for name, column in echo.compute({}, given).items()}
    assert (found["number"], found["raw"], found["is"]) == ([1.0, 2.5, None], [b"\0\1", None, b""], [True, False, None])
    assert [each and each.timestamp() for each in found["moment"]] == [1767312000, 0, None]
    assert found["list"] == [[1.0, 2.5], [], None]
    texts = echo.compute({}, {**given, "number": ["0.5", "-1e3", None], "is": ["true", "false", True]})
    assert (texts["number"].to_pylist(), texts["is"].to_pylist()) == ([0.5, -1000.0, None], [True, False, True])
    for name, wrong in {"number": "x", "moment": "soon", "raw": "?", "list": 1.0, "is": "no"}.items():
        with pytest.raises(RequestInvalid, match=f"'{name}', which .* is {kinds[name]}"):
            echo.compute({}, {**given, name: [wrong, None, None]})
    with pytest.raises(RequestInvalid, match="'raw' is missing"):
        echo.compute({}, {name: values for name, values in given.items() if name != "raw"})
    with pytest.raises(InputMissing, match="cells:radius"):
        function(PYTHON).compute({}, {"factor": [1.0]})


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("{'sum': [1.0]}", "makes 1 values of 'sum' for 2 rows"),
        ("{'other': [1.0, 2.0]}", "makes no 'sum'"),
        ("{'sum': ['a', 'b']}", "is not DOUBLE"),
        ("{'sum': [{}, 3]}", "is not DOUBLE"),
        ("None", "failed: TypeError"),
        ("1 / 0", "failed: ZeroDivisionError"),
    ],
)
def test_what_a_function_makes_has_the_form_that_its_view_says(made: str, said: str) -> None:
    wrong = function(f"def made(inputs):\n    return {made}", inputs=[], features=[("sum", "DOUBLE")])
    with pytest.raises(FunctionFailed, match=said):
        wrong.compute({}, {"factor": [1.0, 2.0]})


def test_whole_numbers_are_made_of_others_towards_zero_and_only_of_those_that_fit() -> None:
    def whole(values: str, kind: str = "INT32") -> list[Any]:
        made = function(f"def made(inputs):\n    return {{'n': {values}}}", inputs=[], features=[("n", kind)])
        return made.compute({}, {"factor": [1.0, 2.0]})["n"].to_pylist()

    assert whole("[2.9, -2.9]") == [2, -2]
    assert whole("np.array([2.0, 7.5])") == [2, 7]
    assert whole("[None, True]") == [None, 1]
    for wrong in ("[2**31, 0]", "[2.0**40, 0]", "[math_nan, 0]".replace("math_nan", "float('nan')")):
        with pytest.raises(FunctionFailed, match="not INT32"):
            whole(wrong)
    assert math.isnan(whole("[float('nan'), 1]", "DOUBLE")[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def made(inputs):\n    return math.sqrt(2)", "'math' from the module around it"),
        ("def made(inputs, scale=SCALE):\n    return inputs", "'SCALE'"),
        ("def made(inputs):\n    return {'a': [helper(each) for each in inputs['a']]}", "'helper'"),
        ("made = lambda inputs: inputs", "no function"),
        ("def made(", "no function"),
        ("def made(inputs):\n    return " + "(" * 5000 + ")" * 5000, "no function"),
        ("", "no function"),
    ],
)
def test_a_text_that_is_not_all_there_is_is_refused_before_it_runs(text: str, said: str) -> None:
    with pytest.raises(FunctionNotLoadable, match=said):
        check_function(text)


def test_decorators_and_annotations_are_not_run_and_imports_are_looked_for() -> None:
    text = """
    @unknown.decorator(sources=[nobody])
    def made(inputs: Dict[str, Any], *others: Unknown) -> "Nothing":
        import json
        value: Unknown = 1
        def inner(each: Unknown) -> Unknown:
            return each + value + len(inputs)
        try:
            import not_there_at_all
        except ImportError:
            pass
        return {"sum": [inner(each) for each in inputs["factor"]]}
    """
    check_function(text)
    assert load_function(text)({"factor": [1.0]}) == {"sum": [3.0]}
    with pytest.raises(FunctionNotLoadable, match="imports not_there_at_all, which is not installed here"):
        load_function("def made(inputs):\n    import not_there_at_all.inside\n")
    assert load_function("def one(inputs): return 1\ndef two(inputs): return 2", "two")(0) == 2
