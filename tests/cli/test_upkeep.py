"""What a person is told of passes over locations."""

from __future__ import annotations

import io
from typing import cast

import pytest

from fairlead.cli.output import Output
from fairlead.cli.upkeep import show_passes
from fairlead.core.errors import Unavailable
from fairlead.sdk.client import Fairlead
from fairlead.sdk.upkeep import Upkeep


class Answers:
    """A client whose passes are over."""

    def __init__(self, *passes: Upkeep) -> None:
        self.upkeep = self
        self._passes = list(passes)

    def wait(self, _asked: object) -> list[Upkeep]:
        return self._passes


def test_a_pass_that_failed_is_not_told_as_one_that_found_nothing() -> None:
    error = {"code": "key-unavailable", "detail": "The key file is needed.", "hint": "Set FAIRLEAD_KEY_FILE."}
    failed = Upkeep(
        id="1", task="scrub", location="virginia", region="aws:us-east-1", state="FAILED", outcome={"error": error}
    )
    stderr = io.StringIO()
    with pytest.raises(Unavailable, match=r"could not be passed over: The key file is needed\.") as raised:
        show_passes(cast("Fairlead", Answers(failed)), Output(stdout=io.StringIO(), stderr=stderr), [failed], wait=True)
    assert raised.value.hint == "Set FAIRLEAD_KEY_FILE."
    assert "virginia: 0 objects, 0.0 MB looked at; FAILED before it was through" in stderr.getvalue()
