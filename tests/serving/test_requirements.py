from __future__ import annotations

import pytest

from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.serving.requirements import OFFLINE, PYTHONS, Lock, lock_requirements, parse_lock

HASH = "sha256:" + "a" * 64


def lock(*lines: str, needs_mlflow: bool = False, python: str = "3.11") -> Lock:
    return lock_requirements(lines, needs_mlflow=needs_mlflow, python=python, index=OFFLINE)


def version_of(found: Lock, name: str) -> str | None:
    return {each.name: each.version for each in found.packages}.get(name)


def test_what_the_release_was_tested_with_is_locked_with_hashes_and_nobody_is_asked() -> None:
    found = lock("scikit-learn>=1.7", "# a comment", "--no-binary :none:", "", "numpy>=1")
    assert found.source == "release"
    assert [each.name for each in found.packages] == sorted(each.name for each in found.packages)
    assert {"bentoml", "numpy", "pandas", "scikit-learn", "scipy", "opentelemetry-exporter-otlp-proto-http"} <= {
        each.name for each in found.packages
    }
    assert all(each.hashes for each in found.packages)
    assert parse_lock(found.text).packages == found.packages
    assert found == lock("numpy>=1", "scikit-learn>=1.7")


@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_is_for_one_python_whichever_one_makes_it(python: str) -> None:
    found = lock(python=python)
    numpy = next(each for each in found.packages if each.name == "numpy")
    assert numpy.version.startswith("2.4." if python == "3.11" else "2.5.")
    # Wheels for this Python on any platform: more than one, and far from all.
    assert 1 < len(numpy.hashes) < 20


def test_mlflow_comes_only_where_it_loads_the_model_and_without_its_console() -> None:
    assert version_of(lock("mlflow==3.17.2"), "mlflow-skinny") is None
    found = lock("mlflow==3.17.2", needs_mlflow=True)
    assert version_of(found, "mlflow-skinny") == "3.17.2"
    assert version_of(found, "mlflow") is None
    assert version_of(lock(needs_mlflow=True), "mlflow-skinny") is not None


def test_the_xgboost_that_brings_cuda_does_not_come_beside_the_one_that_does_not() -> None:
    found = lock("xgboost-cpu", "xgboost")
    assert version_of(found, "xgboost-cpu") is not None
    assert version_of(found, "xgboost") is None


def test_a_worker_that_may_ask_no_index_says_what_is_missing_and_what_to_type() -> None:
    with pytest.raises(Unavailable, match=r"left-pad-of-the-future>=3.*--lock FILE"):
        lock("left-pad-of-the-future>=3")
    with pytest.raises(Unavailable, match=r"scikit-learn==0\.1"):
        lock("scikit-learn==0.1")


@pytest.mark.parametrize("line", ["not a requirement", "evil @ https://evil.example/evil.whl"])
def test_a_requirement_that_no_lock_can_hold_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        lock(line)


def test_a_lock_is_read_as_pip_reads_it() -> None:
    text = f"# made by hand\nB_b==2 \\\n    --hash={HASH} \\\n    --hash={HASH}\na==1.0 --hash={HASH}  # why\n"
    found = parse_lock(text)
    assert [(each.name, each.version, each.hashes) for each in found.packages] == [
        ("a", "1.0", (HASH,)),
        ("b-b", "2", (HASH,)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a==1",
        f"a>=1 --hash={HASH}",
        f"a==1 --hash={HASH}\nA==2 --hash={HASH}",
        "a==1 --hash=md5:00",
        f"--index-url https://evil.example\na==1 --hash={HASH}",
        f"a @ https://evil.example/a.whl --hash={HASH}",
        f"# below \\\n--index-url https://evil.example\na==1 --hash={HASH}",
    ],
    ids=["empty", "no hash", "no version", "twice", "weak", "another index", "a URL", "hidden in a comment"],
)
def test_a_lock_that_leaves_anything_open_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_lock(text)
