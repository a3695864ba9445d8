"""The optional TOML file of settings: a table for each kind of process, whose keys are the variables' names.

The key `lease` of the table `server` stands for the variable `FAIRLEAD_LEASE`, which wins over it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, cast

from fairlead.core.errors import InvalidInput

Table = Literal["client", "server"]

_HINT = "See docs/reference/settings.md."


def read_config(environment: Mapping[str, str], home: Path, table: Table, known: Collection[str]) -> dict[str, object]:
    """What one table of the file says that the environment does not.

    The file is the one that `FAIRLEAD_CONFIG` names, or else `config.toml` in the home, if that is there.

    Raises:
        InvalidInput: if the named file is missing, or one cannot be read, is no TOML, or holds an unknown table or key.
    """
    named = environment.get("FAIRLEAD_CONFIG")
    path = Path(named).expanduser() if named else home.expanduser() / "config.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if named:
            raise InvalidInput(f"FAIRLEAD_CONFIG names {path}, which does not exist.", hint=_HINT) from None
        return {}
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", hint=_HINT) from None
    except ValueError as error:
        raise InvalidInput(f"{path} is no TOML: {error}.", hint=_HINT) from None
    _refuse_unknown(path, "table", document, ("client", "server"))
    found = document.get(table, {})
    if not isinstance(found, dict):
        raise InvalidInput(f"{table!r} in {path} is no table.", hint=f"Write [{table}], and the settings below it.")
    settings = cast("dict[str, object]", found)
    _refuse_unknown(path, "setting", settings, known)
    return {key: value for key, value in settings.items() if not environment.get(f"FAIRLEAD_{key.upper()}")}


def _refuse_unknown(path: Path, what: str, found: Collection[str], known: Collection[str]) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        hint = f"Known: {', '.join(sorted(known))}."
        raise InvalidInput(f"{path} holds {unknown[0][:80]!r}, which is no {what}.", hint=hint)
