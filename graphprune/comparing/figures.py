"""The figures of a comparison as texts, for every table that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Found = Mapping[str, Any]


def summary_rows(found: Found) -> list[tuple[str, ...]]:
    """What, first, second, second as a share of first; ``found`` is the JSON object."""
    rows: list[tuple[str, ...]] = [_counts("parameters", found["params"]), _counts("MACs", found["macs"])]
    if None not in found["bytes"].values():
        rows.append(_counts("file bytes", found["bytes"]))
    metric, latency = found["metric"], found["latency"]
    if metric:
        a, b = metric["first"], metric["second"]
        rows.append((f"{metric['name']} ({metric['samples']})", f"{100 * a:.2f} %", f"{100 * b:.2f} %", ""))
    if latency:
        ratio = latency["ratio"]
        interval = f"{100 * ratio['low']:.1f}-{100 * ratio['high']:.1f} %"
        medians = (f"{latency[side]['median_ms']:.3g} ms" for side in ("first", "second"))
        rows.append(("latency (median)", *medians, f"{100 * ratio['value']:.1f} % ({interval})"))
    return rows


def difference_rows(found: Found) -> list[tuple[str, ...]]:
    """Of every output: its name and its figures."""
    return [
        (
            d["first"] if d["first"] == d["second"] else f"{d['first']} / {d['second']}",
            *(_figure(d[key]) for key in ("max_abs", "mean_abs", "max_rel", "mean_rel")),
            "-" if d["cosine"] is None else f"{d['cosine']:.6f}",
            "-" if d["top1_agreement"] is None else f"{100 * d['top1_agreement']:.1f} %",
            str(d["not_finite"]),
        )
        for d in found["outputs"]
    ]


def _counts(name: str, pair: Mapping[str, int]) -> tuple[str, ...]:
    a, b = pair["first"], pair["second"]
    return name, f"{a:,}", f"{b:,}", f"{100 * b / a:.1f} %" if a else "-"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
