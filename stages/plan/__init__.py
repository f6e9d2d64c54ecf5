"""What a job will take, told before it starts: rows, bytes, files, hours and money, stage by stage.

Reads   the recipe; the heads of its lists, where they lie on this machine; the records of the root, if it has some
Writes  nothing
"""

from stages.plan.figures import Basis, Figure
from stages.plan.job import Job
from stages.plan.plan import Plan, plan_of
from stages.plan.recipe import PlanRecipe, Prices
from stages.plan.room import Room, room_for
from stages.plan.tables import as_json, tables, written

__all__ = [
    "Basis",
    "Figure",
    "Job",
    "Plan",
    "PlanRecipe",
    "Prices",
    "Room",
    "as_json",
    "plan_of",
    "room_for",
    "tables",
    "written",
]
