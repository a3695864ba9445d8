"""Whose rows are left out, as SQL says it and as Python does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fairlead.core.subjects import Subject
from fairlead.featurestore.duck import fetch_rows, open_duckdb
from fairlead.featurestore.forgotten import Forgotten, is_kept

THEN = datetime(2026, 2, 1, tzinfo=UTC)


def test_rows_of_many_subjects_are_left_out_each_up_to_its_own_time(tmp_path: Path) -> None:
    forgotten = [
        Forgotten(subject=Subject.of({"subject": "ä"}, "0" * 64), until=THEN),
        Forgotten(subject=Subject.of({"subject": "o'b"}, "0" * 64), until=THEN + timedelta(days=9)),
        Forgotten(subject=Subject.of({"until": 17, "subject": "b"}, "0" * 64), until=THEN),
        Forgotten(subject=Subject.of({"subject": "c"}), until=THEN),
    ]
    with open_duckdb(tmp_path) as connection:
        connection.execute('CREATE TABLE rows (subject VARCHAR, "until" BIGINT, "at" TIMESTAMPTZ)')
        values = [
            (name, 17, THEN + timedelta(days=late)) for name in ("ä", "o'b", "b", "c", "d", None) for late in (0, 5)
        ]
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", [*values, ("b", 18, THEN)])
        for some in ([], forgotten[:1], forgotten):
            kept = fetch_rows(connection, f"SELECT * FROM rows WHERE {is_kept(some, 'at')} ORDER BY ALL")
            expected = [row for row in [*values, ("b", 18, THEN)] if not any(is_of(row, each) for each in some)]
            assert sorted(map(str, kept)) == sorted(
                str((name, number, moment.astimezone(kept[0][2].tzinfo))) for name, number, moment in expected
            )


def is_of(row: tuple[str | None, int, datetime], forgotten: Forgotten) -> bool:
    by_name = {"subject": row[0], "until": row[1]}
    return forgotten.subject.is_meant([by_name[key] for key in forgotten.subject.keys]) and row[2] <= forgotten.until
