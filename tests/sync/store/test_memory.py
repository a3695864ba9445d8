"""A process that moves bytes keeps the memory that it freed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Blocks that come and go, on two threads as in a transfer; page faults are those of the second half.
SCRIPT = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from fairlead.sync.store.codec import BLOCK_MAX_BYTES
from fairlead.sync.store.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory() and keep_freed_memory()

def use(_):
    blocks = [bytearray(b"x") * BLOCK_MAX_BYTES for _ in range(4)]
    return sum(map(len, blocks))

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with ThreadPoolExecutor(2) as pool:
    list(pool.map(use, range(8)))
    before = faults()
    list(pool.map(use, range(8)))
    print(faults() - before)
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="only glibc can be told so")
def test_blocks_that_come_and_go_find_their_memory_where_the_last_ones_left_it() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", SCRIPT, how], timeout=60)) for how in ("keep", "give")
    }

    assert faults["keep"] < faults["give"] / 10
