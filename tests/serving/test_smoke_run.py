from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.sdk.examples import record_examples
from fairlead.serving import smoke_run
from fairlead.serving.bundle import LOCK
from fairlead.serving.requirements import OFFLINE, lock_requirements
from fairlead.serving.smoke_run import Examples, SmokeResult, Watch, difference, read_examples, run_smoke_test
from tests.serving.models import COLUMNS, expected, write_model

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ROWS = [dict(zip(COLUMNS, values, strict=True)) for values in ((1.0, 2.0, 3.0), (0.0, 0.0, 1.0))]
EXACT = Examples(rows=(), predictions=None, relative_tolerance=0, absolute_tolerance=0.25)


@pytest.mark.timeout(300)
def test_a_bundle_runs_in_a_clean_environment_and_says_what_was_recorded(
    bundle: Path, weights: tuple[float, ...], tmp_path: Path
) -> None:
    ours = tmp_path / "bundle"
    shutil.copytree(bundle, ours)
    right = [expected([*row.values()], *weights) for row in ROWS]
    assert record_examples(ours / "src/model", [*ROWS, ROWS[0]], [*right, 0.75]) == 3
    facts = ours / "src/fairlead_bundle/bundle.json"
    # This machine may have no other Python.
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"python": PYTHON}))
    (ours / LOCK).write_text(lock_requirements(["numpy"], needs_mlflow=False, python=PYTHON, index=OFFLINE).text)
    result = smoke_test(ours, tmp_path)
    # It ran, answered, and two of three are what was recorded: so it names the third.
    assert result.answered == 3
    assert result.failure is not None
    assert result.failure.startswith("Example 2: it answered 0.59")
    assert result.is_of_data


def smoke_test(bundle: Path, folder: Path) -> SmokeResult:
    """From what uv has in its cache, as after `make install`; else from the index."""
    for index in (OFFLINE, None):
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            return run_smoke_test(bundle, scratch, seconds=90, index=index)
        except Unavailable:
            if index is None:
                raise
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"seconds": 0.3, "memory_bytes": 2**40}, "within 0.3 s"), ({"seconds": 60, "memory_bytes": 2**20}, "of memory")],
)
def test_a_process_that_takes_more_than_it_may_is_killed_with_all_below_it(limits: dict[str, Any], reason: str) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", script])
    watch = Watch(process.pid, **limits)
    process.wait(timeout=20)
    watch.end()
    assert watch.reason is not None
    assert reason in watch.reason


def test_a_bundle_for_a_python_that_is_not_here_is_not_the_bundle_s_fault(bundle: Path, tmp_path: Path) -> None:
    ours = tmp_path / "bundle"
    shutil.copytree(bundle / "src/fairlead_bundle", ours / "src/fairlead_bundle")
    (ours / "src/fairlead_bundle/bundle.json").write_text('{"python": "3.6"}')
    with pytest.raises(Unavailable, match=r"no Python 3\.6"):
        run_smoke_test(ours, tmp_path, index=OFFLINE)


@pytest.mark.parametrize(
    ("left", "right", "expected_difference"),
    [
        (0.5, 0.75, 0.25),
        (0.5, 0.8, None),
        ([0.5, 1], [0.5, 1.1], pytest.approx(0.1)),
        ([0.5], 0.5, 0.0),
        ({"y": [0.5]}, [0.5], 0.0),
        ({"label": "a", "score": 1.0}, {"label": "a", "score": 1.2}, pytest.approx(0.2)),
        ({"label": "a", "score": 1.0}, {"label": "b", "score": 1.0}, None),
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}, None),
        ([1, 2], [1, 2, 3], None),
        (None, None, 0.0),
        (None, 0.0, None),
        (True, 1.1, None),
    ],
)
def test_answers_are_compared_within_what_is_tolerated(left: Any, right: Any, expected_difference: Any) -> None:
    assert difference(left, right, EXACT) == expected_difference


VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_everything_is_as_it_is_itself(value: Any) -> None:
    assert difference(value, value, EXACT) == 0


@given(VALUES, VALUES)
def test_a_difference_is_the_same_from_either_side(left: Any, right: Any) -> None:
    one, other = difference(left, right, EXACT), difference(right, left, EXACT)
    assert one == other or (one is not None and other is not None and math.isclose(one, other))


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}, [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        ({"dataframe_records": [{"a": 1}]}, [{"a": 1}]),
        ({"inputs": ["good", "bad"]}, ["good", "bad"]),
        ({"inputs": {"x": [[1], [2]], "y": [3, 4]}}, [{"x": [1], "y": 3}, {"x": [2], "y": 4}]),
        ({"instances": [[1.0, 2.0]]}, [[1.0, 2.0]]),
        ({"inputs": "text"}, []),
    ],
)
def test_the_input_example_of_mlflow_is_asked_where_nothing_was_recorded(
    tmp_path: Path, said: dict[str, Any], rows: list[Any]
) -> None:
    assert read_examples(tmp_path) == Examples(rows=(), predictions=None)
    (tmp_path / "serving_input_example.json").write_text(json.dumps(said))
    found = read_examples(tmp_path)
    assert (found.rows, found.predictions) == (rows, None)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        '{"format": 2}',
        '{"format": 1, "rows": [1], "predictions": []}',
        "[" * 9999,
        '{"format": 1, "rows": [], "absolute_tolerance": -1}',
        '{"format": 1, "rows": [], "absolute_tolerance": Infinity}',
        '{"format": 1, "rows": [], "relative_tolerance": NaN}',
    ],
)
def test_examples_that_make_no_sense_are_refused_with_what_to_type(tmp_path: Path, text: str) -> None:
    (tmp_path / "fairlead_examples.json").write_text(text)
    with pytest.raises(InvalidInput, match="record-examples"):
        read_examples(tmp_path)


@pytest.mark.parametrize("answer", ["1" * 400, "[" * 900 + "1, 2" + "]" * 900])
def test_an_answer_that_cannot_be_compared_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    model = tmp_path / "src/model"
    model.mkdir(parents=True)
    recorded = {"format": 1, "rows": [1], "predictions": [[1.5, 1] if answer.startswith("[") else 1.5]}
    (model / "fairlead_examples.json").write_text(json.dumps(recorded))

    @contextmanager
    def served(*_: object, **__: object) -> Generator[Callable[[Sequence[Any]], list[Any]]]:
        yield lambda _: [json.loads(answer)]

    # In the place of processes, which other tests run.
    monkeypatch.setattr(smoke_run, "_make_environment", _environment_at(tmp_path))
    monkeypatch.setattr(smoke_run, "_served", served)
    assert run_smoke_test(tmp_path, tmp_path).failure is not None


def test_a_model_that_speaks_no_http_has_not_started(tmp_path: Path) -> None:
    (tmp_path / "bentoml.py").write_text(
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', int(sys.argv[-1])))\n"
        "while True:\n"
        "    connection, _ = server.accept()\n"
        "    connection.recv(9999)\n"
        "    connection.sendall(b'nonsense\\r\\n\\r\\n')\n"
        "    connection.close()\n"
    )
    (tmp_path / "src/model").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoke_run, "_make_environment", _environment_at(Path(sys.executable)))
        result = run_smoke_test(tmp_path, tmp_path, seconds=2)
    assert result.failure is not None
    assert result.failure.startswith("It did not start.")


def test_mlflow_is_asked_for_what_a_model_answers_to_its_input_example(tmp_path: Path) -> None:
    folder = write_model(tmp_path, 0.5, -0.25, 0.125)
    example = {"dataframe_split": {"columns": [*COLUMNS], "data": [[1.0, 2.0, 3.0]]}}
    (folder / "serving_input_example.json").write_text(json.dumps(example))
    # In a process of its own, because it puts the model's code on the path.
    script = f"from fairlead.sdk.examples import record_examples; record_examples({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=100)
    found = read_examples(folder)
    assert found.rows == [ROWS[0]]
    assert found.predictions == pytest.approx([expected((1, 2, 3), 0.5, -0.25, 0.125)])


def test_examples_are_of_a_model_and_fit_together(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no MLmodel"):
        record_examples(tmp_path, ROWS, [1, 2])
    write_model(tmp_path, 1.0)
    with pytest.raises(InvalidInput, match="no rows"):
        record_examples(tmp_path)
    with pytest.raises(InvalidInput, match="2 rows and 1 predictions"):
        record_examples(tmp_path, ROWS, [1])


def _environment_at(python: Path) -> Callable[..., Path]:
    def make(*_: object) -> Path:
        return python

    return make
