"""Entity rows as Feast's users give them: a frame of pandas, or a SELECT over the project's data sources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.duck import ArrowTable, fetch_arrow, load_arrow, quote_name
from fairlead.featurestore.feast_rows import SourceReader

if TYPE_CHECKING:
    import pandas as pd
    from feast.data_source import DataSource


def read_entity_rows(frame: pd.DataFrame, time_column: str) -> tuple[ArrowTable, tuple[datetime, datetime]]:
    """A frame as an Arrow table whose times are in UTC, and the first and last of them.

    Times without a zone mean UTC; text is read as times.

    Raises:
        InvalidInput: if there are no rows, the times cannot be read, or a column holds values of several kinds.
    """
    import pandas as pd

    arrow = load_arrow()
    if frame.empty:
        raise InvalidInput("There are no entity rows.", hint="Give at least one, or start_date and end_date instead.")
    try:
        times = cast("Any", pd.to_datetime(frame[time_column], utc=True))
        table = arrow.Table.from_pandas(frame.assign(**{time_column: times}), preserve_index=False)
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"The entity rows cannot be read: {str(error)[:200]}",
            hint="Give each column values of one type, and times such as pandas.to_datetime(..., utc=True).",
        ) from error
    return table.replace_schema_metadata(None), (times.min().to_pydatetime(), times.max().to_pydatetime())


def select_entity_rows(reader: SourceReader, query: str, sources: Sequence[DataSource]) -> ArrowTable:
    """The rows of a SELECT (DuckDB's SQL) over data sources by their names; it reads nothing else.

    Raises:
        InvalidInput: if it is no single SELECT, or names what is not there.
    """
    import duckdb

    named = [each for each in sources if re.search(rf"\b{re.escape(each.name)}\b", query)]
    with reader.open() as connection:
        for source in named:
            columns = reader.all_columns(connection, source)
            connection.execute(f"CREATE TABLE {quote_name(source.name)} AS SELECT * FROM {columns.relation}")  # noqa: S608
        # What the query says is not known to be harmless: it may come over a network, from another person.
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            statements: list[Any] = list(connection.extract_statements(query))
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InvalidInput("The entity rows are not given as one SELECT.", hint="Send a single SELECT.")
            return fetch_arrow(connection, query)
        except duckdb.Error as error:
            raise InvalidInput(
                f"The SELECT for the entity rows cannot be answered: {str(error).splitlines()[0][:300]}",
                hint=f"It may read the data sources: {', '.join(each.name for each in sources)[:300]}.",
            ) from error
