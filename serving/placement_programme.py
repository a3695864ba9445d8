"""A mixed-integer programme, column by column and row by row, and HiGHS, which solves it.

One thread and a fixed seed: equal programmes give equal answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fairlead.core.errors import FairleadError, MissingExtra

_NO_LIMIT = math.inf
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What HiGHS found: a value for each column, the objective, and the bound that it proved nothing is below.

    `row_prices` is what one more unit of each row's limit adds to the objective; only where no column is whole.
    """

    columns: Sequence[float]
    row_prices: Sequence[float]
    objective: float
    bound: float


@dataclass(slots=True)
class Programme:
    """Columns and rows as HiGHS takes them; columns begin at 0 and the objective is minimised."""

    cost: list[float] = field(default_factory=list[float])
    upper: list[float] = field(default_factory=list[float])
    is_whole: list[bool] = field(default_factory=list[bool])
    row_lower: list[float] = field(default_factory=list[float])
    row_upper: list[float] = field(default_factory=list[float])
    first: list[int] = field(default_factory=lambda: [0])
    index: list[int] = field(default_factory=list[int])
    value: list[float] = field(default_factory=list[float])

    def column(self, cost: float, upper: float = _NO_LIMIT, *, is_whole: bool = False) -> int:
        """Add a column and return its index."""
        self.cost.append(cost)
        self.upper.append(upper)
        self.is_whole.append(is_whole)
        return len(self.cost) - 1

    def row(self, terms: Sequence[tuple[int, float]], *, lower: float = -_NO_LIMIT, upper: float = _NO_LIMIT) -> None:
        """Add a row: the sum of (column, coefficient), each column at most once, stays between the limits."""
        for index, value in terms:
            if value:
                self.index.append(index)
                self.value.append(value)
        self.first.append(len(self.index))
        self.row_lower.append(lower)
        self.row_upper.append(upper)


def minimise(programme: Programme, *, relative_gap: float, absolute_gap: float = 0.0) -> Values | None:
    """The least objective within the gap, or None where no values satisfy every row.

    Raises:
        MissingExtra: if HiGHS is not installed.
    """
    try:
        import highspy
        import numpy as np
    except ImportError:
        raise MissingExtra(
            "Placement needs HiGHS, which is not installed.", hint="Run: pip install 'fairlead[server]'"
        ) from None
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(programme.cost), len(programme.row_lower)
    model.col_cost_ = np.array(programme.cost)
    model.col_lower_ = np.zeros(len(programme.cost))
    model.col_upper_ = np.array(programme.upper)
    model.row_lower_, model.row_upper_ = np.array(programme.row_lower), np.array(programme.row_upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(programme.first)
    model.a_matrix_.index_, model.a_matrix_.value_ = np.array(programme.index), np.array(programme.value)
    whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    model.integrality_ = [whole if is_whole else real for is_whole in programme.is_whole]
    solver = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", 1),
        ("mip_rel_gap", relative_gap),
        ("mip_abs_gap", absolute_gap),
        ("mip_feasibility_tolerance", _TOLERANCE),
        ("primal_feasibility_tolerance", _TOLERANCE),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(model)
    solver.run()
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kOptimal:
        found = solver.getInfo()
        is_mixed = any(programme.is_whole)
        return Values(
            columns=[float(value) for value in solver.getSolution().col_value],
            row_prices=() if is_mixed else [float(value) for value in solver.getSolution().row_dual],
            objective=float(found.objective_function_value),
            bound=float(found.mip_dual_bound if is_mixed else found.objective_function_value),
        )
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return None
    raise FairleadError(f"The solver stopped without an answer: {solver.modelStatusToString(status)}.")
