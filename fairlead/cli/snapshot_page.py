"""A report on a snapshot as one page of HTML: plots as inline SVG, no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_INK, _FRAME, _NOW, _BEFORE, _BAD = "#222222", "#999999", "#1f6fb2", "#c9c9c9", "#b3261e"
_WIDTH, _HEIGHT = 320, 150
_LEFT, _BOTTOM = 10, 26
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = (
    f"body{{font:14px/1.45 sans-serif;color:{_INK};max-width:1080px;margin:2em auto;padding:0 1em}}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em .2em 0;text-align:left;vertical-align:top}"
    f"th{{border-bottom:1px solid {_FRAME}}}.bad{{color:{_BAD};font-weight:bold}}"
    "figure{display:inline-block;margin:0 1.5em 1.5em 0}figcaption{max-width:320px}code{font-size:12px}"
)
_MUCH = 0.25
_SOME = 0.1


def write_page(report: dict[str, Any]) -> str:
    """The whole page. Every text of the report is escaped."""
    title = f"{report['service']} as of {report['as_of']}"
    sections = [
        f"<h1>{_text(title)}</h1>",
        f"<p>Snapshot <code>{_text(report['digest'])}</code>, {_released(report)}.</p>",
        _compared(report),
        _checks(report["checks"]),
        "<h2>Rows over time</h2>",
        _figure(draw_history(report["history"]), "Rows of each view in each snapshot, up to this one."),
        _drifts(report["parts"]),
        *(_part(part, has_previous=report["previous"] is not None) for part in report["parts"]),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(filter(None, sections)) + "\n</body></html>\n"
    )


def draw_bars(bars: Sequence[dict[str, Any]], *, has_previous: bool) -> str:
    """A histogram: the share of the values in each bar, now beside before."""
    totals = [max(sum(bar[side] for bar in bars), 1) for side in ("count", "previous")]
    shares = [(bar["count"] / totals[0], bar["previous"] / totals[1]) for bar in bars]
    top = max((max(pair) for pair in shares), default=0.0) or 1.0
    step = (_WIDTH - 2 * _LEFT) / max(len(bars), 1)
    parts: list[str] = []
    for number, (bar, (now, before)) in enumerate(zip(bars, shares, strict=True)):
        x, says = _LEFT + number * step, _text(f"{_label(bar)}: {bar['count']}")
        if has_previous:
            says += _text(f", before {bar['previous']}")
            parts.append(_bar(x, step * 0.45, before / top, _BEFORE, says))
        offset, width = (step * 0.45, step * 0.45) if has_previous else (0.0, step * 0.9)
        parts.append(_bar(x + offset, width, now / top, _NOW, says))
    ends = [(_LEFT, "start", _label(bars[0])), (_WIDTH - _LEFT, "end", _label(bars[-1]))] if bars else []
    parts += [
        f'<text x="{x}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{_text(label)}</text>' for x, anchor, label in ends
    ]
    return _svg(parts)


def draw_history(history: Sequence[dict[str, Any]]) -> str:
    """Rows of each view over the snapshots, as lines."""
    views = sorted({view for each in history for view in each["rows"]})
    top = max((count for each in history for count in each["rows"].values()), default=0) or 1
    step = (_WIDTH - 2 * _LEFT) / max(len(history) - 1, 1)
    parts: list[str] = []
    for index, view in enumerate(views):
        colour = f"hsl({(205 + 67 * index) % 360} 60% 42%)"
        places = [
            (_LEFT + number * step, _level(each["rows"][view] / top), each)
            for number, each in enumerate(history)
            if view in each["rows"]
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
            f"<title>{_text(view)}, {_text(each['as_of'])}: {each['rows'][view]} rows</title></circle>"
            for x, y, each in places
        ]
        parts.append(f'<text x="{_LEFT + 90 * index}" y="{_HEIGHT - 8}" fill="{colour}">{_text(view)}</text>')
    parts.append(f'<text x="{_LEFT}" y="12">{top}</text>')
    return _svg(parts)


def _bar(x: float, width: float, share: float, colour: str, says: str) -> str:
    y = _level(share)
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}" fill="{colour}">'
        f"<title>{says}</title></rect>"
    )


def _level(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - 16)


def _svg(parts: Sequence[str], height: int = _HEIGHT) -> str:
    frame = (
        f'<path d="M {_LEFT} {height - _BOTTOM} H {_WIDTH - _LEFT}" stroke="{_FRAME}"/>' if height == _HEIGHT else ""
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="10" fill="{_INK}">{"".join(parts)}{frame}</svg>'
    )


def _released(report: dict[str, Any]) -> str:
    return "may be served" if report["is_released"] else '<span class="bad">not served: not as expected</span>'


def _compared(report: dict[str, Any]) -> str:
    if report["previous"] is None:
        return "<p>There is no earlier snapshot to compare with.</p>"
    return (
        f"<p>Compared with <code>{_text(report['previous'])}</code> as of {_text(report['previous_as_of'])}: "
        "blue is this snapshot, grey the one before.</p>"
    )


def _checks(checks: Sequence[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td{'' if each['passed'] else ' class=bad'}>{_verdict(each)}</td><td>{_text(each['set'])}</td>"
        f"<td>{_text(each['name'])}</td><td>{_text(each['measure'])}</td><td>{_number(each['value'])}</td>"
        f"<td>{_text(each['limit'])}</td><td>{_text(each['detail'])}</td></tr>"
        for check in checks
        for each in check["results"]
    ]
    rows += [
        f"<tr><td>waiting</td><td colspan=6>{_text(each['view'])}</td></tr>" for each in checks if not each["results"]
    ]
    if not rows:
        return "<h2>Expectations</h2>\n<p>Nothing is expected of it.</p>"
    heads = "".join(f"<th>{head}</th>" for head in ("", "set", "name", "measure", "value", "limit", ""))
    return f"<h2>Expectations</h2>\n<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _verdict(finding: dict[str, Any]) -> str:
    return "passed" if finding["passed"] else "failed" if finding["severity"] == "error" else "warning"


def _drifts(parts: Sequence[dict[str, Any]]) -> str:
    """A bar for each feature: how far it is from the snapshot before."""
    measured = [(part["view"], each) for part in parts for each in part["features"] if each["psi"] is not None]
    if not measured:
        return ""
    height = 18 * len(measured) + 8
    most = max(*(each["psi"] for _, each in measured), 2 * _MUCH)
    rows: list[str] = []
    for number, (view, each) in enumerate(measured):
        y = 18 * number + 4
        colour = _BAD if each["psi"] > _MUCH else "#d08700" if each["psi"] > _SOME else _NOW
        ks = "" if each["ks"] is None else f", KS {each['ks']:.3f} (p {each['ks_p_value']:.2g})"
        width = (_WIDTH - 150) * each["psi"] / most
        name = f"{view}.{each['name']}"
        rows.append(
            f'<text x="0" y="{y + 10}">{_text(name[:24])}</text>'
            f'<rect x="140" y="{y}" width="{width:.1f}" height="12" fill="{colour}">'
            f"<title>{_text(name)}: PSI {each['psi']:.3f}{ks}</title></rect>"
        )
    caption = f"Population stability index of each feature; from {_SOME} on some, from {_MUCH} on much."
    return f"<h2>Drift</h2>\n{_figure(_svg(rows, height), caption)}"


def _part(part: dict[str, Any], *, has_previous: bool) -> str:
    before = "" if part["previous_rows"] is None else f", {part['previous_rows']} before"
    head = f"<h2>{_text(part['view'])} ({_text(part['residency'])})</h2>\n<p>{part['rows']} rows{before}.</p>"
    if part["hidden"]:
        return f"{head}\n<p>{_text(part['hidden'])}</p>"
    return "\n".join([head, *(_feature(part, each, has_previous=has_previous) for each in part["features"])])


def _feature(part: dict[str, Any], feature: dict[str, Any], *, has_previous: bool) -> str:
    is_compared = has_previous and feature["previous_missing"] is not None
    says = f"{feature['name']} ({feature['type']}): missing {_share(feature['missing'], part['rows'])}"
    if is_compared:
        says += f", before {_share(feature['previous_missing'], part['previous_rows'])}"
    if feature["psi"] is not None:
        says += f"; PSI {feature['psi']:.3f}"
    if feature["ks"] is not None:
        says += f", KS {feature['ks']:.3f}"
    return _figure(draw_bars(feature["bars"], has_previous=is_compared), says)


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>"


def _label(bar: dict[str, Any]) -> str:
    if bar["lower"] is not None:
        return f"{bar['lower']:.4g} to {bar['upper']:.4g}"
    return "all others" if bar["value"] is None else str(bar["value"])[:24]


def _share(count: int | None, rows: int | None) -> str:
    return f"{100 * (count or 0) / rows:.2g} %" if rows else "no row"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: object) -> str:
    return escape(str(value))
