"""Change what an index knows without training anything: add corpora, delete pairs, write its files anew.

A new root stands on the parts of the old index and leaves them as they are. Ids stay what they were: those of an added
corpus follow behind, those of deleted rows are given to nobody else.

Reads   the parts of the index, wherever they lie; the corpora that are added
Writes  index_alive: where something is deleted, now or before · index_add and index: serving shards of what is added,
        or, compacted, of everything · index_report and index_gate: as after a build
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from pipeline.commits import Whole
from pipeline.errors import RecipeError
from pipeline.recipe import Section
from pipeline.run import Root
from pipeline.stage import Input, Need, Stage
from pipeline.storage import absolute_root
from stages.index.add import IndexAdd
from stages.index.additions import refuse_unfit
from stages.index.alive import IndexAlive, read_pair_ids
from stages.index.database import ALIVE, CORPUS, Database
from stages.index.gate import IndexGate
from stages.index.index_file import IndexFile, Part
from stages.index.parts import Parts
from stages.index.recipe import IndexRecipe, IndexSettings
from stages.index.report import IndexReport
from stages.index.serve import IndexServe


class UpdateRecipe(Section):
    index: Root  # the root of the index to build upon
    add: tuple[Root, ...] = ()  # roots whose corpora are added
    delete: tuple[str, ...] | str = ()  # pair ids, or the path of a text file with one a line
    compact: bool = False  # write all serving shards anew, without what is deleted, instead of some for what is added


def update_stages(update: UpdateRecipe, settings: IndexSettings) -> list[Stage[Any]]:
    """In the order in which they run.

    Raises RecipeError where nothing would change, InputError where a part of the index is gone or was made anew, or
    where a corpus cannot be added.
    """
    delete, roots = read_pair_ids(update.delete), [absolute_root(root) for root in update.add]
    if not (roots or delete or update.compact):
        raise RecipeError("update: nothing to do. Give roots in add, pair ids in delete, or compact: true")
    database = Database.of_index(absolute_root(update.index))
    index = _checked(database)
    if roots:
        refuse_unfit(roots, database.wholes, index.key)

    recipe = IndexRecipe(key=index.key, **settings.model_dump())
    corpora = _numbered(CORPUS, [*(part.root for part in index.corpora), *roots])
    template = Input("index_train", Need.WHOLE, index.template.root)
    before = Input(ALIVE, Need.WHOLE, index.alive.root, f"old.{ALIVE}") if index.alive else None
    alive = Input(ALIVE, Need.WHOLE) if delete or before else None
    served = _numbered("index", [part.root for part in index.serving])
    serving, merged = ([], served) if update.compact else (served, [])

    stages: list[Stage[Any]] = [IndexAlive(delete, corpora, before)] if alive else []
    if roots:
        first_ids = accumulate((Whole.open(root, CORPUS).rows for root in roots), initial=database.size)
        added = corpora[len(index.corpora) :]
        stages.append(IndexAdd(recipe, list(zip(added, first_ids, strict=False)), template))
    if roots or merged:
        entries = Input("index_add", Need.WHOLE) if roots else None
        stages.append(IndexServe(recipe, template, entries, merged, alive))
        serving = [*serving, Input("index", Need.WHOLE)]
    parts = Parts(corpora, template, serving, alive)
    return [*stages, IndexReport(recipe, parts), IndexGate(recipe, parts)]


def _checked(database: Database) -> IndexFile:
    """As a file in another root says it. Raises InputError where a part is not what the index was measured with."""
    assert database.index is not None, "opened by its index"
    index = database.index.elsewhere(database.root)
    parts: list[tuple[Part, str]] = [(index.template, "index_train"), *((part, "index") for part in index.serving)]
    parts += [(part, CORPUS) for part in index.corpora] + ([(index.alive, ALIVE)] if index.alive else [])
    for part, stage in parts:
        part.open(database.root, stage)
    return index


def _numbered(stage: str, roots: Sequence[str]) -> list[Input]:
    return [Input(stage, Need.WHOLE, root, f"{number}.{stage}") for number, root in enumerate(roots)]
