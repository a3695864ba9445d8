from __future__ import annotations

import io

from fairlead.sdk.progress_bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_on_a_terminal_once_it_takes_long() -> None:
    shown, quick, piped = Terminal(), Terminal(), io.StringIO()
    with progress_bar("register [churn]", shown) as progress:
        progress(1, 10)
    with progress_bar("register [churn]", quick, after_seconds=60) as progress:
        progress(10, 10)
    with progress_bar("register [churn]", piped) as progress:
        progress(1, 10)
    assert "register [churn]" in shown.getvalue()
    assert (quick.getvalue(), piped.getvalue()) == ("", "")
