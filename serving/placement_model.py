"""The placement programme: what `docs/explanation/placement.md` writes out, in HiGHS.

Variables, for regions r that no rule forbids, rentable options o (an instance type, on demand or spot), lots g of
requests that the same regions may answer, clouds c and copies a:

    y[r]    1 where the region is used
    n[r,o]  instances rented, whole
    x[g,r]  share of the lot that the region answers, from 0 to 1
    z[c]    1 where the cloud is used
    a[k,v]  1 where region v gets its copy by way of a region of the set k, which all send at the same cost

Columns stand in order of region id. Where totals differ by less than a hundredth of a cent an hour in a programme that
is solved to no remaining gap, the smaller region id wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.core.ids import RegionId
from fairlead.serving.placement_copies import Copy, feed, relays_of
from fairlead.serving.placement_options import GRAMS_PER_TONNE, Problem, RentKey, use_of
from fairlead.serving.placement_programme import Programme, Values, minimise
from fairlead.serving.placement_pruning import Lot, lots_of, undominated
from fairlead.serving.placement_relays import Way, ways_of
from fairlead.serving.placement_request import PlacementRequest
from fairlead.serving.placement_shares import split_lots
from fairlead.serving.placement_survival import answered, losses_of, need_within, needs_of

RELATIVE_GAP = 1e-3
EXACT_COLUMNS = 200
"""Programmes of at most so many columns are solved to no remaining gap."""
_TIE_USD_PER_HOUR = 1e-7
_LEAST_LOAD = 1e-6
_ROUNDING = 1e-9
_WAY_STEP = 1e-5
"""Relays count as equally dear where they differ by no more than this part of the least rent there is to pay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a solution makes small, and what it may not exceed; all amounts are per hour.

    The objective is dollars x `usd` + grams x `grams` + request seconds of waiting x `request_seconds`, plus
    `surcharges` on instances. `other_than` asks for another set of regions than that one, `exactly` for that set.
    """

    usd: float = 1.0
    grams: float = 0.0
    request_seconds: float = 0.0
    most_usd: float = math.inf
    most_grams: float = math.inf
    most_request_seconds: float = math.inf
    surcharges: Mapping[RentKey, float] = field(default_factory=dict[RentKey, float])
    other_than: frozenset[RegionId] | None = None
    exactly: frozenset[RegionId] | None = None
    relative_gap: float = RELATIVE_GAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What the solver decided: instances, each group's shares by region (they sum to 1), and where copies come from.

    `objective` is what was minimised and `bound` what no placement is below; `usd`, `grams` and `request_seconds` are
    what it costs, emits and makes wait in an hour.
    """

    regions: tuple[RegionId, ...]
    instances: Mapping[RentKey, int]
    shares: Mapping[tuple[int, RegionId], float]
    copies: tuple[Copy, ...]
    objective: float
    bound: float
    usd: float
    grams: float
    request_seconds: float


def aim_of(request: PlacementRequest) -> Aim:
    """Dollars, with carbon and waiting at the request's prices, within its budgets."""
    return Aim(
        grams=request.carbon_price_usd_per_tonne / GRAMS_PER_TONNE,
        request_seconds=request.latency_price_usd_per_request_second,
        most_usd=_or_none(request.budget_usd_per_hour),
        most_grams=_or_none(request.carbon_budget_g_per_hour),
    )


def solve(problem: Problem, aim: Aim | None = None) -> Solution | None:
    """The placement with the least objective, to within the aim's gap, or None where there is none.

    Raises:
        MissingExtra: if HiGHS is not installed.
    """
    aim = aim or aim_of(problem.request)
    if not problem.regions or any(not parcel.regions for parcel in problem.parcels):
        return None
    needs: dict[frozenset[int], float] = {}
    while True:
        built = _Built(problem, aim, needs)
        values = minimise(
            built.programme,
            relative_gap=0.0 if len(built.programme.cost) <= EXACT_COLUMNS else aim.relative_gap,
            absolute_gap=_TIE_USD_PER_HOUR / 10,
        )
        if values is None:
            return None
        missing = built.missing(values)
        if not missing:
            return built.solution(values)
        needs.update(missing)


class _Built:
    """A problem as a programme, and the way back from the values of its columns."""

    def __init__(self, problem: Problem, aim: Aim, needs: Mapping[frozenset[int], float]) -> None:
        self._problem = problem
        self._request = problem.request
        self._aim = aim
        self.programme = Programme()
        self._metrics: list[tuple[float, float, float]] = []
        self._regions = _kept(problem, aim)
        self._lots = lots_of(problem, self._regions, is_latency_wanted=_wants(aim)[2])
        self._used: dict[int, int] = {}
        self._rented: dict[tuple[int, int], int] = {}
        self._served: dict[tuple[int, int], int] = {}
        self._relayed: list[tuple[Way, int]] = []
        self._columns()
        self._demand_rows()
        self._capacity_rows()
        self._diversity_rows()
        self._survival_rows(needs)
        self._spot_rows()
        self._copy_rows()
        self._quota_rows()
        self._cap_rows()
        self._switching_rows()
        self._set_rows()

    # --- columns ---------------------------------------------------------------------------------------------------

    def _column(
        self, usd: float, grams: float, seconds: float, upper: float, *, is_whole: bool, extra: float = 0.0
    ) -> int:
        """A column by what one of it costs, emits and makes wait in an hour; `extra` is in the objective alone."""
        aim = self._aim
        self._metrics.append((usd, grams, seconds))
        cost = usd * aim.usd + grams * aim.grams + seconds * aim.request_seconds + extra
        return self.programme.column(cost, upper, is_whole=is_whole)

    def _columns(self) -> None:
        problem, most = self._problem, max(self._problem.load_replicas, self._request.min_replicas)
        for rank, region in enumerate(self._regions):
            option = problem.regions[region]
            fed = [copy for (_, where), copy in problem.directs.items() if where == option.region.id]
            self._used[region] = self._column(
                sum(copy.usd_per_hour for copy in fed),
                sum(copy.grams_per_hour for copy in fed),
                0.0,
                1.0,
                is_whole=True,
                extra=rank * _TIE_USD_PER_HOUR + self._moving(option.region.id),
            )
            for index, each in enumerate(option.instances):
                # After a loss, or with room that counts for less than a replica, no type is needed more than this.
                fleets = 1 if self._request.survive is None else 2
                upper = max(1, math.ceil(fleets * most / each.room - _ROUNDING))
                self._rented[region, index] = self._column(
                    each.usd_per_hour,
                    each.grams_per_hour,
                    0.0,
                    upper,
                    is_whole=True,
                    extra=self._aim.surcharges.get(each.key, 0.0),
                )
        for index, lot in enumerate(self._lots):
            for region in lot.regions:
                option = problem.regions[region]
                waited = sum(
                    problem.parcels[each].requests_per_hour
                    * option.round_trips[problem.parcels[each].group].value
                    / 1000
                    for each in lot.parcels
                )
                self._served[index, region] = self._column(
                    lot.requests_per_hour * option.egress_usd_per_request,
                    lot.requests_per_hour * option.egress_grams_per_request,
                    waited,
                    1.0,
                    is_whole=False,
                )

    def _moving(self, region: RegionId) -> float:
        switching = self._request.switching
        if switching is None:
            return 0.0
        runs = any(each.region == region for each in switching.current)
        usd = -switching.stop_region_usd if runs else switching.start_region_usd
        return self._aim.usd * usd / switching.horizon_hours

    # --- rows ------------------------------------------------------------------------------------------------------

    def _demand_rows(self) -> None:
        for index, lot in enumerate(self._lots):
            self.programme.row([(self._served[index, region], 1.0) for region in lot.regions], lower=1.0, upper=1.0)
        for (_, region), column in self._served.items():
            self.programme.row([(column, 1.0), (self._used[region], -1.0)], upper=0.0)

    def _capacity_rows(self) -> None:
        load: dict[int, list[tuple[int, float]]] = {region: [] for region in self._regions}
        for (index, region), column in self._served.items():
            load[region].append((column, -self._lots[index].load_replicas))
        for region in self._regions:
            room = self._room(region)
            self.programme.row([*room, *load[region]], lower=0.0)
            # A region is used exactly where something runs in it, with traffic or (for availability) without.
            self.programme.row([*((column, 1.0) for column, _ in room), (self._used[region], -1.0)], lower=0.0)
            for column, _ in room:
                upper = self.programme.upper[column]
                self.programme.row([(column, 1.0), (self._used[region], -upper)], upper=0.0)
        # Instances are whole, so the room for what certain regions must answer is a whole number of replicas: true
        # anyway, and said because it brings the relaxation close to the programme.
        for where, need in needs_of(self._problem, self._regions).items():
            self.programme.row(
                [each for region in sorted(where) for each in self._room(region)], lower=self._whole(need)
            )
        if self._request.min_replicas > 1:
            terms = [(column, float(self._replicas(key))) for key, column in self._rented.items()]
            self.programme.row(terms, lower=float(self._request.min_replicas))

    def _whole(self, need: float) -> float:
        has_spot = any(each.key.is_spot for region in self._regions for each in self._problem.regions[region].instances)
        return need if has_spot else math.ceil(need - _ROUNDING)

    def _room(self, region: int) -> list[tuple[int, float]]:
        instances = self._problem.regions[region].instances
        return [(self._rented[region, index], each.room) for index, each in enumerate(instances)]

    def _replicas(self, key: tuple[int, int]) -> int:
        return self._problem.regions[key[0]].instances[key[1]].replicas

    def _diversity_rows(self) -> None:
        if self._request.min_regions > 1:
            self.programme.row(
                [(column, 1.0) for column in self._used.values()], lower=float(self._request.min_regions)
            )
        if self._request.min_clouds > 1:
            chosen: list[tuple[int, float]] = []
            for loss in losses_of(self._problem, self._regions, "cloud"):
                cloud = self._column(0.0, 0.0, 0.0, 1.0, is_whole=True)
                self.programme.row([(cloud, -1.0), *((self._used[each], 1.0) for each in sorted(loss))], lower=0.0)
                chosen.append((cloud, 1.0))
            self.programme.row(chosen, lower=float(self._request.min_clouds))

    def _survival_rows(self, needs: Mapping[frozenset[int], float]) -> None:
        survive = self._request.survive
        if survive is None:
            return
        known = {**needs_of(self._problem, self._regions), **needs}
        room: dict[frozenset[int], int] = {}
        losses = losses_of(self._problem, self._regions, survive)
        for where in sorted({*known, *(where & loss for where in known for loss in losses)}, key=sorted):
            room[where] = self._column(0.0, 0.0, 0.0, math.inf, is_whole=False)
            terms = [each for region in sorted(where) for each in self._room(region)]
            self.programme.row([(room[where], -1.0), *terms], lower=0.0, upper=0.0)
        for where, need in known.items():
            for loss in losses:
                if where & loss:
                    terms = [(room[where], 1.0)]
                    if where & loss == where:
                        terms = []
                    else:
                        terms.append((room[where & loss], -1.0))
                    self.programme.row(terms, lower=self._whole(need))

    def _spot_rows(self) -> None:
        spot = self._request.spot
        if spot is None:
            return
        for share, sign in ((spot.max_share, 1.0), (spot.min_share, -1.0)):
            terms: list[tuple[int, float]] = []
            for (region, index), column in self._rented.items():
                each = self._problem.regions[region].instances[index]
                terms.append((column, sign * each.replicas * (float(each.key.is_spot) - share)))
            self.programme.row(terms, upper=0.0)

    def _copy_rows(self) -> None:
        """A relayed copy instead of the direct one, from a region that is used and was fed directly itself."""
        ids = {self._problem.regions[region].region.id: region for region in self._regions}
        fed_by_relay: dict[tuple[str, RegionId], list[int]] = {}
        for way in self._ways(ids):
            usd, grams = self._change(way.relays[0])
            column = self._column(usd, grams, 0.0, 1.0, is_whole=False)
            self._relayed.append((way, column))
            fed_by_relay.setdefault((way.cargo, way.destination), []).append(column)
        for (_, where), columns in fed_by_relay.items():
            terms = [(column, 1.0) for column in columns]
            self.programme.row([*terms, (self._used[ids[where]], -1.0)], upper=0.0)
        feeders: dict[tuple[str, tuple[RegionId, ...]], int] = {}
        for way, column in self._relayed:
            key = (way.cargo, way.senders)
            if key not in feeders:
                feeders[key] = self._column(0.0, 0.0, 0.0, math.inf, is_whole=False)
                # How many of the senders are used and fed directly.
                terms = [(self._used[ids[sender]], -1.0) for sender in way.senders]
                terms += [(each, 1.0) for sender in way.senders for each in fed_by_relay.get((way.cargo, sender), ())]
                self.programme.row([(feeders[key], 1.0), *terms], upper=0.0)
            self.programme.row([(column, 1.0), (feeders[key], -1.0)], upper=0.0)

    def _ways(self, ids: Mapping[RegionId, int]) -> tuple[Way, ...]:
        aim = self._aim
        is_capped = aim.most_usd < math.inf or aim.most_grams < math.inf

        def saving(relay: Copy) -> float:
            usd, grams = self._change(relay)
            return usd * aim.usd + grams * aim.grams

        relays = [
            relay
            for relay in self._problem.relays or ()
            if relay.source in ids and relay.destination in ids and (is_capped or saving(relay) < 0)
        ]
        is_rough = not is_capped and len(relays) > EXACT_COLUMNS
        return ways_of(relays, saving, step=_WAY_STEP * self._least_rent() if is_rough else 0.0)

    def _change(self, relay: Copy) -> tuple[float, float]:
        """What it adds to dollars and grams that this relay feeds its region, and not the direct copy."""
        direct = self._problem.directs[relay.cargo, relay.destination]
        return relay.usd_per_hour - direct.usd_per_hour, relay.grams_per_hour - direct.grams_per_hour

    def _least_rent(self) -> float:
        """What the objective pays at least for the instances of any placement."""
        aim = self._aim
        rents = [
            (each.usd_per_hour * aim.usd + each.grams_per_hour * aim.grams) / each.room
            for region in self._regions
            for each in self._problem.regions[region].instances
        ]
        return max(1.0, self._problem.load_replicas) * min(rents)

    def _quota_rows(self) -> None:
        for quota in self._request.quotas:
            terms = [
                (column, use_of(quota, self._problem.regions[region].instances[index]))
                for (region, index), column in self._rented.items()
            ]
            self.programme.row(terms, upper=quota.limit)

    def _cap_rows(self) -> None:
        aim = self._aim
        for metric, most in enumerate((aim.most_usd, aim.most_grams, aim.most_request_seconds)):
            if most < math.inf:
                self.programme.row([(column, each[metric]) for column, each in enumerate(self._metrics)], upper=most)

    def _switching_rows(self) -> None:
        switching = self._request.switching
        if switching is None or not switching.overlap_hours:
            return
        running = {RentKey(each.region, each.sku, each.is_spot): each.count for each in switching.current}
        for (region, index), column in self._rented.items():
            each = self._problem.regions[region].instances[index]
            twice = self._aim.usd * each.usd_per_hour * switching.overlap_hours / switching.horizon_hours
            started = self._column(0.0, 0.0, 0.0, math.inf, is_whole=False, extra=twice)
            self.programme.row([(started, 1.0), (column, -1.0)], lower=-float(running.get(each.key, 0)))

    def _set_rows(self) -> None:
        other, exactly = self._aim.other_than, self._aim.exactly
        ids = {self._problem.regions[region].region.id: column for region, column in self._used.items()}
        if other is not None:
            # At least one region differs: one of the set is left, or one outside it is used.
            terms = [(column, -1.0 if region in other else 1.0) for region, column in ids.items()]
            self.programme.row(terms, lower=1.0 - sum(region in other for region in ids))
        if exactly is not None:
            for region, column in ids.items():
                self.programme.row([(column, 1.0)], lower=float(region in exactly), upper=float(region in exactly))

    # --- the way back ----------------------------------------------------------------------------------------------

    def missing(self, values: Values) -> dict[frozenset[int], float]:
        """The sets of regions in which a loss would leave too little room, with the room (in replicas) they need."""
        survive = self._request.survive
        if survive is None:
            return {}
        room: dict[int, float] = {}
        for (region, index), column in self._rented.items():
            each = self._problem.regions[region].instances[index]
            room[region] = room.get(region, 0.0) + round(values.columns[column]) * each.room
        among = frozenset(self._regions)
        sets = [frozenset(parcel.regions) & among for parcel in self._problem.parcels]
        found: dict[frozenset[int], float] = {}
        total = self._problem.load_replicas
        for loss in losses_of(self._problem, self._regions, survive):
            left = {region: 0.0 if region in loss else space for region, space in room.items()}
            most, short = answered(self._problem, left)
            if most < total - _LEAST_LOAD * max(1.0, total):
                where = frozenset[int]().union(*(sets[parcel] for parcel in short))
                found[where] = need_within(self._problem, sets, where)
        return found

    def solution(self, values: Values) -> Solution:
        """The values of the columns as a placement."""
        regions = self._problem.regions
        instances = {
            regions[region].instances[index].key: round(values.columns[column])
            for (region, index), column in self._rented.items()
            if values.columns[column] > 0.5
        }
        used = tuple(sorted({key.region for key in instances}))
        lots: list[tuple[Lot, dict[int, float]]] = []
        for index, lot in enumerate(self._lots):
            lots.append((lot, {region: values.columns[self._served[index, region]] for region in lot.regions}))
        constant = self._constant()
        usd, grams, seconds = (
            sum(value * each[metric] for value, each in zip(values.columns, self._metrics, strict=True))
            for metric in range(3)
        )
        return Solution(
            regions=used,
            instances=instances,
            shares=split_lots(self._problem, lots),
            copies=self._copies(values, used),
            objective=values.objective + constant,
            bound=values.bound + constant,
            usd=usd,
            grams=grams,
            request_seconds=seconds,
        )

    def _copies(self, values: Values, used: tuple[RegionId, ...]) -> tuple[Copy, ...]:
        directs = {key: copy for key, copy in self._problem.directs.items() if key[1] in used}
        if self._problem.relays is None:
            return feed(self._request, directs, relays_of(self._request, self._problem.catalog, directs))
        taken = [way for way, column in self._relayed if values.columns[column] > 0.5]
        relayed = {(way.cargo, way.destination) for way in taken}
        senders = {(way.cargo, way.destination): [each for each in way.relays if each.source in used] for way in taken}
        feeding = {
            key: next((each for each in relays if (each.cargo, each.source) not in relayed), directs[key])
            for key, relays in senders.items()
        }
        return tuple(feeding.get(key, copy) for key, copy in sorted(directs.items()))

    def _constant(self) -> float:
        """What leaving every running region would cost: staying in one takes it off again."""
        switching = self._request.switching
        if switching is None:
            return 0.0
        left = len({each.region for each in switching.current})
        return self._aim.usd * left * switching.stop_region_usd / switching.horizon_hours


def _kept(problem: Problem, aim: Aim) -> tuple[int, ...]:
    """The regions that the least objective may need (indices); all of them where one may stand in for another."""
    request = problem.request
    every = tuple(range(len(problem.regions)))
    if request.survive == "region" or problem.relays or aim.exactly:
        return every
    rents = {
        (region, index): each.usd_per_hour * aim.usd
        + each.grams_per_hour * aim.grams
        + aim.surcharges.get(each.key, 0.0)
        for region, option in enumerate(problem.regions)
        for index, each in enumerate(option.instances)
    }
    current = () if request.switching is None else request.switching.current
    return undominated(
        problem,
        wants=_wants(aim),
        # Where a set of regions is excluded, two more that are not in it: one of them leads to yet another set.
        need=request.min_regions + (0 if aim.other_than is None else 2),
        within_cloud=request.min_clouds > 1 or request.survive == "cloud",
        rents=rents,
        no_rivals=aim.other_than or frozenset(),
        never=frozenset(each.region for each in current),
    )


def _wants(aim: Aim) -> tuple[bool, bool, bool]:
    return (
        bool(aim.usd) or aim.most_usd < math.inf,
        bool(aim.grams) or aim.most_grams < math.inf,
        bool(aim.request_seconds) or aim.most_request_seconds < math.inf,
    )


def _or_none(limit: float | None) -> float:
    return math.inf if limit is None else limit
