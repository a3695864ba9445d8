from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import fairlead.sync.store.copy, fairlead.sync.store.objects, fairlead.sync.store.reader
import fairlead.sync.store.refs, fairlead.sync.store.writer
print(*sys.modules)
"""


def test_the_content_store_imports_nothing_heavy_and_nothing_above_it() -> None:
    loaded = set(
        subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    )
    heavy = {
        "numpy",
        "fsspec",
        "cryptography",
        "pyfastcdc",
        "s3fs",
        "gcsfs",
        "adlfs",
        "sqlalchemy",
        "fastapi",
        "pandas",
    }
    assert not heavy & loaded
    ours = {name for name in loaded if name.startswith("fairlead.")}
    assert all(name.startswith(("fairlead.core", "fairlead.sync")) for name in ours)
