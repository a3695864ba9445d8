"""A small model of the shape that users register, and an online store with its features."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

COLUMNS = ("radius", "texture", "age")
SNAPSHOT = "sha256:" + "5" * 64

_CODE = """
import os
import pathlib

import numpy as np

if "TINY_MODEL_MARKER" in os.environ:
    pathlib.Path(os.environ["TINY_MODEL_MARKER"]).touch()


class _Model:
    def __init__(self, folder):
        self.weights = np.load(pathlib.Path(folder) / "weights.npy")

    def predict(self, rows):
        return 1 / (1 + np.exp(-(np.nan_to_num(np.asarray(rows, dtype="float64")) @ self.weights)))


def _load_pyfunc(path):
    return _Model(path)
"""


def model_files(*weights: float, extra_bytes: int = 0) -> dict[str, bytes]:
    """What `mlflow.pyfunc.save_model(loader_module=..., data_path=..., code_paths=...)` writes, for a logistic head."""
    inputs = [{"type": "double", "name": name, "required": True} for name in COLUMNS]
    described = {
        "flavors": {"python_function": {"loader_module": "tiny_head", "code": "code", "data": "data/head"}},
        "signature": {"inputs": json.dumps(inputs), "outputs": None, "params": None},
    }
    files = {
        "MLmodel": json.dumps(described).encode(),
        "requirements.txt": b"mlflow==3.17.2\nnumpy\n",
        "code/tiny_head.py": _CODE.encode(),
        "data/head/weights.npy": npy(np.array(weights)),
    }
    if extra_bytes:
        noise = np.random.default_rng(7).standard_normal(extra_bytes // 4).astype("float32")
        files["data/head/extractor.npy"] = npy(noise)
    return files


def npy(
    array: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> bytes:
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': ({array.size},), }}"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + array.tobytes()


def write_model(folder: Path, *weights: float) -> Path:
    for path, data in model_files(*weights).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


def expected(row: Sequence[float], *weights: float) -> float:
    return float(1 / (1 + np.exp(-np.dot(row, weights))))


def write_online_store(path: Path, rows: Mapping[str, Sequence[float | None]], region: str) -> Path:
    """An online store of format 1, with one view keyed by `sample_id`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        meta = {"format": "1", "service": "diagnosis", "service_digest": "sha256:", "snapshot": SNAPSHOT}
        meta |= {"as_of": "2026-01-01T00:00:00.000000Z", "region": region}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.execute("CREATE TABLE views (position, alias, store, keys, features, ttl_microseconds, is_missing)")
        # In another order than the model's: the signature decides.
        names = [*reversed(COLUMNS)]
        connection.execute(
            "INSERT INTO views VALUES (0, 'cells', 'view_0', ?, ?, NULL, 0)",
            (
                json.dumps([["sample_id", "STRING", "sample_id"]]),
                json.dumps([[name, "DOUBLE", name] for name in names]),
            ),
        )
        connection.execute("CREATE TABLE view_0 (k0 TEXT PRIMARY KEY, event_timestamp INTEGER, f0, f1, f2)")
        connection.executemany(
            "INSERT INTO view_0 VALUES (?, 1, ?, ?, ?)", [(key, *reversed(values)) for key, values in rows.items()]
        )
        connection.commit()
    return path
