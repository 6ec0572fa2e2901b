"""Section "cost": hours, memory, what was run twice, and an estimate of the energy."""

from __future__ import annotations

from typing import Any

from .base import About, Section, Sharing, render
from .costs import Cost, read_costs
from .machines import gpu_watts, read_machines


def section(about: About, sharing: Sharing | None) -> Section:
    """What the study took, by stage."""
    energy, machines = about.options.energy, read_machines(about)
    gpus = {
        told["job"]: int(told.get("processes") or 1)
        for told in machines
        if told.get("device") == "cuda"
    }
    costs = read_costs(about.study.root, about.history, gpu_watts(machines), gpus, energy)
    most = max((cost.cpu_h for cost in costs.stages), default=0.0) or 1.0
    html = render(
        "cost.html.j2",
        rows=[_row(cost, cost.kwh(energy), most, sharing) for cost in costs.stages],
        total=_row(costs.total, costs.total.kwh(energy), 0.0, sharing),
        energy=energy,
        accounted=costs.accounted,
        preemptions=about.history.preemptions,
        damaged=len(costs.damaged) if sharing else costs.damaged[:5],
        n_damaged=len(costs.damaged),
        any_inside=any(cost.inside for cost in costs.stages),
        any_gpu=bool(gpus),
        shared=sharing is not None,
    )
    return Section("cost", "Cost", html)


def _row(cost: Cost, kwh: float, most: float, sharing: Sharing | None) -> dict[str, Any]:
    return {
        "stage": cost.stage,
        "jobs": sharing.count(cost.jobs) if sharing else str(cost.jobs),
        "wall": _number(cost.wall_h),
        "cpu": _number(cost.cpu_h),
        "gpu": _number(cost.gpu_h) if cost.gpu_h else "",
        "peak": f"{cost.peak_mb / 1000:.2f}" if cost.peak_mb else "",
        "again": _again(cost),
        "kwh": _number(kwh),
        "measured": "" if cost.measured_kwh is None else _number(cost.measured_kwh),
        "lost": _number(cost.lost_h) if cost.lost_h else "",
        "share": round(100 * cost.cpu_h / most, 1) if most else 0,
        "inside": cost.inside,
    }


def _again(cost: Cost) -> str:
    told = [
        (cost.retries, "retry", "retries"),
        (cost.requeues, "requeue", "requeues"),
        (cost.preemptions, "preemption", "preemptions"),
    ]
    return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in told if n)


def _number(value: float) -> str:
    """A number with as many digits as say something."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return "<0.001" if 0 < value < 0.001 else f"{value:.3f}"
