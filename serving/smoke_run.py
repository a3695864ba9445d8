"""Runs a bundle in a clean virtual environment, and compares what it answers with the version's recorded examples.

Everything runs in processes of its own, in a folder that goes afterwards: uv makes the environment and fills it from
the bundle's lock, wheels alone and every one of them checked against its hash; BentoML serves the bundle from there on
loopback. Only that last process runs code of the model, without any of our settings, and it is killed when it needs
more memory or time than it may have.

Examples are `fairlead_examples.json` in the version's files, or MLflow's own input example: that has inputs alone, so
they are answered and compared with nothing.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeGuard, cast

import psutil

from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.serving.bundle import LOCK
from fairlead.serving.processes import free_port, log_tail
from fairlead.serving.requirements import run_uv

EXAMPLES = "fairlead_examples.json"
EXAMPLES_FORMAT = 1
ROWS_MAX = 1000
_EXAMPLES_MAX_BYTES = 16 * 2**20
_ANSWER_MAX_BYTES = 32 * 2**20
_ROWS_AT_ONCE = 50
_LOG_READ_BYTES = 4 * 2**20
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Rows of a version with what it predicted for them; None where nobody wrote that down."""

    rows: Sequence[Any]
    predictions: Sequence[Any] | None
    relative_tolerance: float = 1e-4
    absolute_tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeResult:
    """What came of a smoke test: `failure` is None if it passed.

    `is_of_data` says that the failure may quote the model's data, which must not leave the region of restricted data.
    """

    answered: int
    compared: int
    largest_difference: float | None
    seconds: float
    failure: str | None
    is_of_data: bool = False


class _Failed(Exception):
    """The bundle does not do what it should."""

    def __init__(self, reason: str, *, is_of_data: bool = False) -> None:
        super().__init__(reason)
        self.is_of_data = is_of_data


def run_smoke_test(
    bundle: Path, scratch: Path, *, seconds: float = 300.0, memory_bytes: int = 8 * 2**30, index: str | None = None
) -> SmokeResult:
    """Install what the bundle in `bundle` needs below `scratch`, serve it, and ask it for its examples.

    `seconds` and `memory_bytes` are limits of serving; `index` is as for `lock_requirements`.

    Raises:
        Unavailable: if the environment cannot be made here: no such Python, or no package index answers.
    """
    started = time.monotonic()
    answered, compared, largest = 0, 0, None
    try:
        examples = read_examples(bundle / "src" / "model")
        python = _make_environment(bundle, scratch, index)
        with _served(bundle, scratch, python, seconds=seconds, memory_bytes=memory_bytes) as ask:
            for start in range(0, len(examples.rows), _ROWS_AT_ONCE):
                rows = examples.rows[start : start + _ROWS_AT_ONCE]
                answers = ask(rows)
                if answers is None:
                    # A service of the user's own, which offers something else.
                    break
                answered += len(answers)
                if examples.predictions is not None:
                    found = _compare(answers, examples, start)
                    largest = found if largest is None else max(largest, found)
                    compared += len(answers)
        failure, is_of_data = None, False
    except _Failed as error:
        failure, is_of_data = str(error), error.is_of_data
    except InvalidInput as error:
        failure, is_of_data = str(error), True
    except (RecursionError, OverflowError):
        failure, is_of_data = "Its examples or answers hold a number or a list that cannot be compared.", False
    return SmokeResult(
        answered=answered,
        compared=compared,
        largest_difference=largest,
        seconds=round(time.monotonic() - started, 3),
        failure=failure,
        is_of_data=is_of_data,
    )


def read_examples(model: Path) -> Examples:
    """The examples in a model's folder; none at all where it has no file of them.

    Raises:
        InvalidInput: if the file holds something else.
    """
    recorded, written = model / EXAMPLES, model / "serving_input_example.json"
    file = recorded if recorded.exists() else written
    if not file.exists():
        return Examples(rows=(), predictions=None)
    try:
        if file.stat().st_size > _EXAMPLES_MAX_BYTES:
            raise ValueError("it is too large")  # noqa: TRY301  (one answer to all that is wrong)
        said = cast("dict[str, Any]", json.loads(file.read_text(encoding="utf-8")))
        return _recorded(said) if file is recorded else Examples(rows=_input_rows(said), predictions=None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"The version's {file.name} cannot be read: {error}.",
            hint="Write it anew before you register the version: fairlead model record-examples FOLDER",
        ) from None


def _recorded(said: Mapping[str, Any]) -> Examples:
    if said["format"] != EXAMPLES_FORMAT:
        raise ValueError(f"its format is {said['format']!r}")
    examples = Examples(
        rows=list(said["rows"])[:ROWS_MAX],
        predictions=None if said.get("predictions") is None else list(said["predictions"])[:ROWS_MAX],
        relative_tolerance=float(said.get("relative_tolerance", 1e-4)),
        absolute_tolerance=float(said.get("absolute_tolerance", 1e-6)),
    )
    if not all(0 <= each < math.inf for each in (examples.relative_tolerance, examples.absolute_tolerance)):
        raise ValueError("its tolerances are no numbers from 0 on")
    if examples.predictions is not None and len(examples.predictions) != len(examples.rows):
        raise ValueError(f"it has {len(examples.rows)} rows and {len(examples.predictions)} predictions")
    return examples


def _input_rows(said: Mapping[str, Any]) -> list[Any]:
    """Rows of MLflow's input example for servers, in the forms that it writes for tables and tensors."""
    if "dataframe_split" in said:
        table = said["dataframe_split"]
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]][:ROWS_MAX]
    if "dataframe_records" in said:
        return list(said["dataframe_records"])[:ROWS_MAX]
    inputs = said.get("inputs", said.get("instances"))
    if isinstance(inputs, dict):
        named = cast("dict[str, list[Any]]", inputs)
        return [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)][:ROWS_MAX]
    return cast("list[Any]", inputs)[:ROWS_MAX] if isinstance(inputs, list) else []


def _make_environment(bundle: Path, scratch: Path, index: str | None) -> Path:
    """A fresh virtual environment with what the bundle's lock names, and nothing else; its Python."""
    facts = json.loads((bundle / "src/fairlead_bundle/bundle.json").read_text(encoding="utf-8"))
    folder = scratch / "environment"
    make = ["venv", "--quiet", "--no-project", "--no-python-downloads", "--python", str(facts["python"])]
    made = run_uv([*make, str(folder)], index=index, seconds=60)
    if made.returncode:
        raise Unavailable(
            f"This worker has no Python {facts['python']} to test the bundle with.",
            hint="Install it on the workers of the region: uv python install",
        )
    python = folder / "bin" / "python"
    # Copies: what code of a model writes into its environment must not reach uv's cache, and so the next one.
    fill = ["pip", "install", "--quiet", "--require-hashes", "--no-build", "--link-mode", "copy"]
    fill += ["--python", str(python), "--requirement", str(bundle / LOCK)]
    filled = run_uv(fill, index=index, seconds=600)
    if filled.returncode:
        said = filled.stderr.strip()[-1000:]
        if "ash mismatch" in said:
            raise _Failed(f"A package is not what the lock says: {said}")
        raise Unavailable(
            f"The bundle's requirements cannot be installed here: {said}", hint="See FAIRLEAD_PACKAGE_INDEX."
        )
    return python


@contextmanager
def _served(
    bundle: Path, scratch: Path, python: Path, *, seconds: float, memory_bytes: int
) -> Generator[Callable[[Sequence[Any]], list[Any] | None]]:
    port, log = free_port(), scratch / "serve.log"
    home = scratch / "home"
    home.mkdir()
    environment = {
        "PATH": f"{python.parent}:{os.defpath}",
        "HOME": str(home),
        "BENTOML_HOME": str(home),
        "TMPDIR": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = [str(python), "-m", "bentoml", "serve", str(bundle), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    watch = Watch(process.pid, seconds=seconds, memory_bytes=memory_bytes)
    try:
        _wait_until_ready(process, port, watch, log)
        yield lambda rows: _ask(port, rows, watch, log)
    finally:
        watch.end()
        process.wait()


class Watch:
    """Kills a process and all below it when they need more than they may, and when it is told to."""

    def __init__(self, pid: int, *, seconds: float, memory_bytes: int) -> None:
        self._process = psutil.Process(pid)
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._over = threading.Event()
        self.reason: str | None = None
        self._thread = threading.Thread(target=self._run, name="fairlead-smoke-test", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        known: set[psutil.Process] = set()
        while not self._over.wait(_POLL_SECONDS):
            family = self._family()
            known |= family
            if time.monotonic() > self._deadline:
                self.reason = f"It did not finish within {self._seconds:g} s."
            elif sum(map(_resident_bytes, family)) > self._memory_bytes:
                self.reason = f"It needed more than {self._memory_bytes} bytes of memory."
            if self.reason is not None:
                break
        for each in known | self._family():
            try:
                each.kill()
            except psutil.Error:
                continue

    def _family(self) -> set[psutil.Process]:
        try:
            return {self._process, *self._process.children(recursive=True)}
        except psutil.Error:
            return set()


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, watch: Watch, log: Path) -> None:
    restarts = 0
    while process.poll() is None and watch.reason is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (OSError, HTTPException):
            # BentoML starts a worker that ended with an error again, and would do so for ever.
            with log.open("rb") as written:
                restarts = written.read(_LOG_READ_BYTES).count(b"Traceback (most recent call last)")
            if restarts > 1:
                break
        time.sleep(_POLL_SECONDS)
    raise _Failed(f"It did not start. {watch.reason or ''} Its log ends:\n{log_tail(log)}", is_of_data=True)


def _ask(port: int, rows: Sequence[Any], watch: Watch, log: Path) -> list[Any] | None:
    """The predictions for rows; None where nothing answers at `/predict_rows`."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict_rows",
        data=json.dumps({"rows": rows}).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  (its own address, on loopback)
            data = answer.read(_ANSWER_MAX_BYTES)
        predictions = json.loads(data)["predictions"]
        if not isinstance(predictions, list) or len(cast("list[Any]", predictions)) != len(rows):
            raise _Failed(f"It did not give {len(rows)} predictions for {len(rows)} rows.")
        return cast("list[Any]", predictions)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        said = error.read(2000).decode("utf-8", "replace")
        raise _Failed(f"It answered {error.code}: {said}\n{log_tail(log)}", is_of_data=True) from None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise _Failed(f"It did not answer. {watch.reason or error}", is_of_data=watch.reason is None) from None


def _compare(answers: Sequence[Any], examples: Examples, start: int) -> float:
    """The largest difference from what was recorded."""
    assert examples.predictions is not None  # noqa: S101  (the caller looked)
    largest = 0.0
    for number, answer in enumerate(answers, start):
        recorded = examples.predictions[number]
        found = difference(answer, recorded, examples)
        if found is None:
            raise _Failed(
                f"Example {number}: it answered {answer!r:.200}, and {recorded!r:.200} was recorded.", is_of_data=True
            )
        largest = max(largest, found)
    return largest


def difference(answer: Any, recorded: Any, examples: Examples) -> float | None:
    """How far an answer is from the recorded one at most; None where that is more than is tolerated.

    A list or object of one member is as good as the member: libraries differ in how they say one number.
    """
    left, right = _bare(answer), _bare(recorded)
    if _is_number(left) and _is_number(right):
        is_close = math.isclose(left, right, rel_tol=examples.relative_tolerance, abs_tol=examples.absolute_tolerance)
        return abs(left - right) if is_close else None
    parts, others = _parts(left), _parts(right)
    if parts is None or others is None:
        return 0.0 if left == right else None
    if parts.keys() != others.keys():
        return None
    found = [difference(parts[name], others[name], examples) for name in parts]
    return None if None in found else max((each for each in found if each is not None), default=0.0)


def _bare(value: object) -> object:
    parts = _parts(value)
    return value if parts is None or len(parts) != 1 else _bare(next(iter(parts.values())))


def _parts(value: object) -> Mapping[object, object] | None:
    """The members of a list or an object; None for anything else."""
    if isinstance(value, dict):
        return cast("dict[object, object]", value)
    return dict(enumerate(cast("list[object]", value))) if isinstance(value, list) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
