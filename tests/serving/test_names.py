"""Names as platforms take them, for whatever people call things."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.ids import RegionId
from fairlead.serving.kinds.names import deployment_name, platform_name, region_name
from tests.serving.workloads import workload

TEXTS = st.one_of(st.text(min_size=1, max_size=60), st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True))


@given(text=TEXTS, longest=st.integers(8, 63))
def test_every_text_has_a_name_that_platforms_take(text: str, longest: int) -> None:
    name = platform_name(text, longest=longest)
    assert len(name) <= longest
    assert re.fullmatch(r"[a-z]([a-z0-9]|-(?=[a-z0-9]))*", name)
    assert platform_name(name, longest=longest) == name


@given(one=TEXTS, other=TEXTS)
def test_different_texts_have_different_names(one: str, other: str) -> None:
    assert (platform_name(one, longest=63) == platform_name(other, longest=63)) == (one == other)


def test_a_name_that_fits_stays_as_it_is() -> None:
    assert platform_name("churn-2", longest=24) == "churn-2"
    assert platform_name("Churn", longest=24).startswith("churn-")
    assert region_name(RegionId("aws:us-east-1")) == "aws-us-east-1"


def test_workspaces_do_not_share_a_name() -> None:
    names = {
        deployment_name(workload(workspace=workspace, deployment=deployment), longest=40)
        for workspace, deployment in (("default", "a-b"), ("a", "b"), ("a-b", "c"), ("a", "b-c"))
    }
    assert len(names) == 4
    assert "a-b" in names
