"""A contract for import-linter: one package imports only what is listed, of all that is ours."""

from __future__ import annotations

from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """`source` and everything below it import nothing of ours but themselves and `may_import`, also indirectly.

    Direct imports are enough to look at as long as every package in `may_import` has a rule of its own.
    """

    type_name = "only"

    source = fields.StringField()
    may_import = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001  (the base class's signature)
        del verbose
        source = cast("str", self.source)
        allowed = (source, *cast("list[str]", self.may_import))
        broken = [
            (importer, imported)
            for importer in sorted({source, *graph.find_descendants(source)})
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not any(imported == package or imported.startswith(f"{package}.") for package in allowed)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in cast("list[tuple[str, str]]", check.metadata["broken"]):
            output.print_error(f"- {importer} -> {imported}", bold=False)
        output.new_line()
