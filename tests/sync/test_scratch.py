from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fairlead.sync.scratch import Scratch

_USE = """
import sys, time
from pathlib import Path
import pytest

from fairlead.sync.scratch import Scratch
with Scratch(Path(sys.argv[1])).folder("copy-") as folder:
    (folder / "rows").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_gone_when_its_use_ends_also_with_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with Scratch(tmp_path / "scratch").folder("join-") as folder:
            (folder / "rows").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not any((tmp_path / "scratch").iterdir())


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_uses_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _USE, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        with Scratch(tmp_path).folder("copy-") as mine:
            assert (theirs / "rows").exists()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            with Scratch(tmp_path).folder("copy-"):
                assert not theirs.exists()
                assert mine.exists()


def test_threads_never_take_each_other_s_folder(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    lost: list[Path] = []

    def use() -> None:
        for number in range(50):
            with scratch.folder("t-") as folder:
                (folder / "file").write_text(str(number))
                if (folder / "file").read_text() != str(number):
                    lost.append(folder)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
    assert not any(tmp_path.iterdir())
