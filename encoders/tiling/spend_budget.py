"""A plan within a tile budget."""

from dataclasses import replace

from encoders.tile_budget import TileBudget
from encoders.types import SlideWarning, TilePlan


def within_budget(plan: TilePlan, budget: TileBudget | None) -> TilePlan:
    """The plan with the chosen tiles alone, and a warning where that leaves some out. `budget` is the slide's own."""
    planned = len(plan.coords)
    if budget is None or planned <= budget.tiles:
        return plan
    how = "evenly spaced" if budget.choice == "uniform" else "drawn at random"
    detail = f"As was asked, {budget.tiles} of the slide's {planned} tiles are used, {how}; the others are not seen."
    # First: of many warnings the last are not told.
    warnings = (SlideWarning("tile_budget", detail), *plan.warnings)
    return replace(plan, coords=plan.coords[budget.chosen(planned)], warnings=warnings)
