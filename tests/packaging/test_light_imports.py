"""The SDK and the command line start at once, and in an environment that holds little else."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = [
    *["adlfs", "azure", "botocore", "gcsfs", "google.cloud", "s3fs"],
    *["alembic", "bentoml", "duckdb", "fastapi", "feast", "highspy", "mlflow", "pandas", "psycopg", "pyarrow"],
    *["pydantic", "pydantic_settings", "sklearn", "sqlalchemy", "structlog", "uvicorn"],
]
# Classes that Feast loads by their path, which are its own classes' children.
LOADED_BY_FEAST = {"fairlead.sdk.feast_provider", "fairlead.sdk.feast_registry"}
HELP = "from fairlead.cli.main import main\nsys.argv = ['fairlead', '--help']\ntry: main()\nexcept SystemExit: pass"


def _modules_below(package: str) -> list[str]:
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if name not in LOADED_BY_FEAST]


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import fairlead", id="import fairlead"),
        pytest.param("import " + ", ".join(_modules_below("fairlead.sdk")), id="fairlead.sdk"),
        pytest.param("import " + ", ".join(_modules_below("fairlead.sync.store")), id="fairlead.sync.store"),
        pytest.param(HELP, id="fairlead --help"),
    ],
)
def test_nothing_heavy_is_imported(program: str) -> None:
    script = f"import sys\n{program}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, text=True)
    assert finished.returncode == 0, finished.stderr
    assert sorted(set(HEAVY) & set(finished.stderr.splitlines())) == []


def test_a_worker_starts_without_the_packages_of_the_server() -> None:
    script = "import sys\nimport fairlead.app.worker\nprint(*sys.modules, sep='\\n')"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert sorted({"alembic", "fastapi", "starlette", "uvicorn"} & set(finished.stdout.splitlines())) == []


def test_help_answers_at_once() -> None:
    """Measured as processor time, which other work on the machine does not stretch."""
    command = [Path(sys.executable).with_name("fairlead"), "--help"]
    subprocess.run(command, capture_output=True, check=True)  # writes the bytecode
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
