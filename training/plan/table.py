"""A plan as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from training.plan.memory import GIB
from training.plan.plan import Plan


def show(planned: Plan, console: Console) -> None:
    """Print parts of memory, the verdict, speed, time and cost, then what they rest on."""
    console.print(_memory(planned))
    verdict = (
        f"{planned.memory.total / GIB:.1f} GiB a {_unit(planned)} of {planned.gpu.memory_gib:g}: "
        f"{planned.verdict}, {abs(planned.margin):.0%} {'over' if planned.margin < 0 else 'left'}"
    )
    console.print(verdict, style="green" if planned.fits else "red", highlight=False)
    for change in planned.instead:
        console.print(f"  would fit: {change}", highlight=False)
    console.print(_speed(planned))
    for heading, lines in (("Look at", planned.notes), ("Assumed", planned.assumptions)):
        if lines:
            console.print(heading, style="bold")
        for line in lines:
            console.print(f"- {line}", highlight=False)


def _memory(planned: Plan) -> Table:
    zero = f"ZeRO-{planned.sharding.stage}" if planned.recipe.deepspeed else "no DeepSpeed"
    title = f"{planned.recipe.name}: {planned.sharding.gpus} x {planned.gpu.name}, {zero}"
    table = Table("Memory at the peak", "GiB", title=title)
    table.columns[1].justify = "right"
    for name, size in planned.memory.gpu.items():
        if size:
            table.add_row(name, f"{size / GIB:.2f}")
    table.add_section()
    table.add_row(f"a {_unit(planned)}", f"{planned.memory.total / GIB:.2f}")
    table.add_section()
    for name, size in planned.memory.host.items():
        if size:
            table.add_row(f"host: {name}", f"{size / GIB:.1f}")
    return table


def _speed(planned: Plan) -> Table:
    shape, speed = planned.shape, planned.speed
    table = Table("Run", "", show_header=False)
    table.columns[1].justify = "right"
    for name, value in (
        ("parameters", f"{_short(shape.total)}, {_short(shape.active)} active"),
        ("trained", _short(planned.training.trained)),
        ("largest pass", f"{planned.size.tokens:,} tokens"),
        (f"tokens/s a {_unit(planned)}", f"{speed.tokens_per_second:,.0f}"),
        ("tokens/s", f"{planned.tokens_per_second:,.0f}"),
        ("of the peak (MFU)", f"{speed.mfu:.1%}"),
        ("a step", f"{planned.conversations_a_step} conversations, {speed.step:.2f} s"),
    ):
        table.add_row(name, value)
    if planned.decisions_per_second is not None:
        table.add_row("decisions/s", f"{planned.decisions_per_second:,.0f}")
    hours, cost = planned.hours, planned.cost
    if hours is None or cost is None or planned.steps is None:
        table.add_row("hours, cost", "need --data or --conversations")
    else:
        table.add_row("steps", f"{planned.steps:,}")
        table.add_row("hours", f"{hours:,.2f}")
        table.add_row("cost", f"{cost:,.2f} dollars")
    return table


def _unit(planned: Plan) -> str:
    return "process" if planned.gpu.name == "cpu" else "GPU"


def _short(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
