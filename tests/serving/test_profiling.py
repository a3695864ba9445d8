"""A profile says how much one replica answers, and stops where more load shows nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.serving.profiling import (
    Level,
    ProfileLimits,
    best_of,
    is_enough,
    percentile,
    profile_bundle,
)


def level(concurrency: int, rate: float, p95_ms: float = 10.0, errors: int = 0) -> Level:
    return Level(
        concurrency=concurrency,
        requests=100,
        errors=errors,
        requests_per_second=rate,
        p50_ms=1.0,
        p95_ms=p95_ms,
        p99_ms=p95_ms,
        cpu_ms_per_request=1.0,
    )


def test_load_grows_until_answers_are_late_or_no_more_come() -> None:
    assert not is_enough([level(1, 100)], None)
    assert not is_enough([level(1, 100), level(2, 180)], None)
    assert is_enough([level(1, 100), level(2, 180), level(4, 182)], None)
    assert is_enough([level(1, 100, p95_ms=60.0)], 50.0)
    assert is_enough([level(1, 100, errors=1)], None)


def test_the_best_level_is_the_fastest_that_kept_the_limit() -> None:
    levels = [level(1, 100), level(2, 180, p95_ms=40.0), level(4, 200, p95_ms=60.0)]
    assert best_of(levels, 50.0) == levels[1]
    assert best_of(levels, None) == levels[2]
    assert best_of(levels, 5.0) is None


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(each) for each in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert percentile([], 0.95) == 0.0


def test_limits_are_sensible() -> None:
    for wrong in ({"p95_ms": 0.0}, {"max_concurrency": 0}, {"seconds": 1000.0}):
        with pytest.raises(InvalidInput):
            ProfileLimits(**wrong)  # pyright: ignore[reportArgumentType]  (one member each)


def test_a_real_bundle_is_measured_under_growing_load(bundle: Path, tmp_path: Path) -> None:
    measured = shutil.copytree(bundle, tmp_path / "bundle")
    examples = {"format": 1, "rows": [{"radius": 1.0, "texture": 2.0, "age": 3.0}], "predictions": [0.5]}
    (measured / "src" / "model" / "fairlead_examples.json").write_text(json.dumps(examples))
    steps: list[int] = []
    found = profile_bundle(
        measured,
        tmp_path,
        ProfileLimits(max_concurrency=2, seconds=0.3),
        environment={},
        report=lambda done, _total: steps.append(done),
    )
    assert [each.concurrency for each in found.levels] == [1, 2][: len(found.levels)]
    assert steps == [*range(1, len(found.levels) + 1)]
    assert found.best is not None
    assert found.best.requests_per_second > 1
    assert 0 < found.best.p50_ms <= found.best.p95_ms <= found.best.p99_ms
    assert found.best.cpu_ms_per_request > 0
    assert found.peak_memory_bytes > 10_000_000
    assert found.start_seconds > 0


def test_an_answer_without_end_is_none_and_is_not_taken_into_memory(tmp_path: Path) -> None:
    model = tmp_path / "src/model"
    model.mkdir(parents=True)
    (model / "fairlead_examples.json").write_text(json.dumps({"format": 1, "rows": [1]}))
    # In the place of BentoML: it is found first.
    (tmp_path / "bentoml.py").write_text(
        "import http.server, sys\n"
        "class Endless(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "    def do_POST(self):\n"
        "        self.do_GET()\n"
        "        while True:\n"
        "            self.wfile.write(bytes(2**20))\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[-1])), Endless).serve_forever()\n"
    )
    with pytest.raises(Unavailable, match="first example"):
        profile_bundle(tmp_path, tmp_path, ProfileLimits(max_concurrency=1, seconds=0.2), environment={})
