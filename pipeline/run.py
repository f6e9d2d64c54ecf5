"""A run: one root, a list of stages, and the scheduler that makes every shard of every stage exactly once.

The scheduler is a bounded window over an executor. Shard i of a stage starts as soon as shard i of its chained inputs
is committed; a stage that needs an input whole is planned when that input's manifest is written. A shard that raises
is tried once more; one whose process dies three times is left out; then the run goes on with the others and ends with
the list of what failed, or, with accept_failed, makes those rejects and goes on. More than 20 shards, or 1 % of a
stage, are never accepted, and stop the run where they fail one after the other; so does a storage that fails, a setting
that proves wrong, a state that cannot be opened, and a stage that gives the alarm: no shard is to blame then.
"""

import os
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pipeline.commits import CommitRecord, StageFolder, resolve_folder
from pipeline.credentials import redact
from pipeline.errors import NotOpened, RecipeError, StorageError
from pipeline.executor import Call, Died, Done, Executor, LocalExecutor, Outcome, Raised
from pipeline.progress import Progress
from pipeline.recipe import Section
from pipeline.stage import Stage
from pipeline.stage_run import StageRun
from pipeline.storage import absolute_root, open_store

MAX_RAISES, MAX_DEATHS, MAX_LOSSES = 2, 3, 20
RECENT = 10  # shards of a stage that an alarm may look at
SHOWN = 20  # failed shards, of a report


def _seen_by_all(root: str) -> str:
    if os.environ.get("RAY_ADDRESS") and "://" not in root and not os.path.isabs(root):
        raise ValueError(
            "is relative, and a cluster job runs in a temporary folder: give /… or, where one is allowed, a url"
        )
    return root


Root = Annotated[str, AfterValidator(_seen_by_all)]
"""Of a run: a folder or an fsspec url; on a cluster absolute and shared."""

LocalPath = Annotated[Path, AfterValidator(lambda path: Path(_seen_by_all(str(path))))]
"""A file or folder that every machine sees at the same place; on a cluster absolute."""


class Base(Section):
    """A finished run to build on: every stage whose fingerprint is the same is taken from it."""

    root: Root
    accept: tuple[str, ...] = ()  # stages to take whatever their fingerprint


class RunRecipe(Section):
    """What every recipe of a run says, beside its stages' sections."""

    note: str = ""  # what a reader of the report has to know
    root: Root
    engine: Literal["ray", "local"] = "ray"
    cpus: int | None = Field(None, ge=1)  # of an embedded Ray; None: the machine's


@dataclass(frozen=True)
class RunReport:
    """failed: stage and shard → cause, in one line. unfinished: stages that are not whole, in order. stopped: why no
    more shards were begun, if the run did not end by itself."""

    root: str
    failed: dict[tuple[str, str], str]
    unfinished: tuple[str, ...]
    stopped: str = ""

    @property
    def exit_code(self) -> int:
        return 1 if self.unfinished else 0

    def __str__(self) -> str:
        lines = [f"{stage} shard {shard} failed: {cause}" for (stage, shard), cause in self.failed.items()]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"… and {len(lines) - SHOWN:,} more: python jobs/stats.py {self.root}"]
        if self.stopped:
            lines.append(f"Stopped: {self.stopped}")
        if self.unfinished:
            lines.append(
                f"Not finished: {', '.join(self.unfinished)}. The same command continues; what is done is kept."
            )
        return "\n".join(lines)


def executor_for(engine: Literal["ray", "local"], cpus: int | None = None) -> Executor:
    """ray joins the cluster that the environment names, else starts an embedded one with that many CPUs."""
    if engine == "local":
        return LocalExecutor()
    from pipeline.ray_executor import RayExecutor

    return RayExecutor(cpus)


@dataclass
class Run:
    root: str
    stages: Sequence[Stage[Any]]
    base: Base | None = None
    recipe: str = ""  # as text; kept beside the stages once they accept it
    recipe_name: str = "recipe.yaml"  # other jobs on the same root keep theirs by other names
    accept_failed: bool = False  # shards that fail for good become rejects, once all others are made
    _raises: Counter[str] = field(default_factory=Counter)
    _deaths: Counter[str] = field(default_factory=Counter)
    _losses: Counter[str] = field(default_factory=Counter)  # deaths, whoever was to blame
    _in_a_row: Counter[str] = field(default_factory=Counter)  # failures of a stage since it last made a shard
    _ended: dict[str, deque[CommitRecord | Exception]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=RECENT))
    )  # by stage
    _stopped: str = ""

    def execute(self, executor: Executor) -> RunReport:
        """Raises FingerprintMismatch, RecipeError or InputError before any shard is started; a failing shard is in the
        report, not an exception."""
        for run in self._connect():
            run.look()  # so that nothing is changed in a root that is refused
        runs = self._connect()
        with Progress(self.root, runs) as progress:
            self._advance(runs, executor, progress)
            self._keep_recipe()
            try:
                in_flight = self._submit(runs, executor, progress)
                while in_flight or self._accept(runs, progress):
                    outcomes = executor.wait() if in_flight else []
                    for outcome in outcomes:
                        self._settle(outcome, runs, progress)
                    self._advance(runs, executor, progress)
                    in_flight += self._submit(runs, executor, progress) - len(outcomes)
                    progress.tick()
            finally:
                executor.close()
        return RunReport(
            root=self.root,
            failed={(run.name, shard): cause for run in runs for shard, cause in run.failed.items()},
            unfinished=tuple(run.name for run in runs if not run.whole),
            stopped=self._stopped,
        )

    def _connect(self) -> list[StageRun]:
        runs: dict[str, StageRun] = {}
        for stage in self.stages:
            upstream: dict[str, StageRun | StageFolder] = {}
            for source in stage.inputs:
                if source.root is None and source.stage not in runs:
                    raise RecipeError(
                        f"{stage.name} needs {source.stage}, which is no stage before it: {', '.join(runs)}"
                    )
                upstream[source.key] = resolve_folder(source.root, source.stage) if source.root else runs[source.stage]
            runs[stage.name] = StageRun(stage, StageFolder(self.root, stage.name), upstream)
        self._check_base(list(runs))
        return list(runs.values())

    def _check_base(self, stages: Sequence[str]) -> None:
        if self.base is None:
            return
        folders = {stage: StageFolder(self.base.root, stage) for stage in stages}
        if not any(folder.plan() or folder.taken() for folder in folders.values()):
            raise RecipeError(f"base.root {self.base.root} holds no run of these stages: {', '.join(stages)}")
        for stage in self.base.accept:
            if stage not in folders:
                raise RecipeError(f"base.accept names {stage!r}; the stages are {', '.join(stages)}")
            if not resolve_folder(self.base.root, stage).manifest():
                raise RecipeError(f"base.accept names {stage}, which is not whole in {self.base.root}")

    def _keep_recipe(self) -> None:
        if self.recipe:
            open_store(self.root).write(self.recipe_name, self.recipe.encode())

    def _advance(self, runs: Sequence[StageRun], executor: Executor, progress: Progress) -> None:
        """Prepare and finish whatever can be, in order: finishing one stage may let the next be planned."""
        for run in runs:
            if run.job is None:
                root, accept = (absolute_root(self.base.root), self.base.accept) if self.base else (None, ())
                run.prepare(root, accept)
            if run.job and run.complete and not run.whole and self._inputs_whole(run) and run.finish():
                executor.finish(run.job)
                assert run.whole is not None, "finished"
                if news := run.stage.news(run.whole):
                    progress.news(news)

    def _inputs_whole(self, run: StageRun) -> bool:
        return all(isinstance(u, StageFolder) or u.whole for u in run.upstream.values())

    def _submit(self, runs: Sequence[StageRun], executor: Executor, progress: Progress) -> int:
        """Later stages first, so that what is begun is carried through before more is begun."""
        submitted = 0
        for run in reversed(runs):
            if run.job is None or self._stopped:
                continue
            while run.ready and executor.room(run.job) > 0:
                call = Call(run.job, run.start_next())
                executor.submit(call)
                progress.started(run, call.shard.id)
                submitted += 1
        return submitted

    def _settle(self, outcome: Outcome, runs: Sequence[StageRun], progress: Progress) -> None:
        call = outcome.call
        run = next(run for run in runs if run.job is call.job)
        if isinstance(outcome, Done | Raised):
            ended = self._ended[run.name]
            ended.append(outcome.record if isinstance(outcome, Done) else outcome.error)
            self._stop(run.stage.alarm(tuple(ended)))
        if isinstance(outcome, Done):
            self._in_a_row[run.name] = 0
            self._committed(run, call.shard.id, runs)
            progress.ended(run, call.shard.id, outcome.record)
            return
        progress.ended(run, call.shard.id, None)
        first = not self._raises[call.name] + self._deaths[call.name]
        gives_up = self._raised(outcome, progress) if isinstance(outcome, Raised) else self._died(outcome, progress)
        if first and self._raises[call.name] + self._deaths[call.name]:
            self._in_a_row[run.name] += 1
        if self._in_a_row[run.name] > run.bearable:
            self._stop(f"{self._in_a_row[run.name]} shards of {run.name} failed and none was made between them")
        if gives_up:
            run.give_up(call.shard.id, redact(outcome.cause))
        else:
            run.try_again(call.shard.id)

    def _raised(self, outcome: Raised, progress: Progress) -> bool:
        """True: the shard is given up."""
        name = outcome.call.name
        self._raises[name] += 1
        told = str(outcome.error) if isinstance(outcome.error, RecipeError) else outcome.cause  # else: the traceback
        progress.trouble(f"{name}: {redact(told).strip()}")
        gives_up = self._raises[name] >= MAX_RAISES
        if isinstance(outcome.error, StorageError | RecipeError):
            self._stop(redact(str(outcome.error)))
        elif isinstance(outcome.error, NotOpened) and gives_up:
            self._stop(f"{outcome.call.job.stage.name} could not be opened: {redact(str(outcome.error))}")
        return gives_up

    def _died(self, outcome: Died, progress: Progress) -> bool:
        """True: the shard is given up."""
        name = outcome.call.name
        self._deaths[name] += outcome.counted
        self._losses[name] += 1
        blame = f"death {self._deaths[name]} of {MAX_DEATHS}" if outcome.counted else "not the shard's fault"
        progress.trouble(f"{name}: its process died ({blame}): {redact(outcome.cause).strip()}")
        return self._deaths[name] >= MAX_DEATHS or self._losses[name] >= MAX_LOSSES

    def _stop(self, why: str) -> None:
        self._stopped = self._stopped or why

    def _committed(self, run: StageRun, shard: str, runs: Sequence[StageRun]) -> None:
        run.committed(shard)
        for later in runs:
            if later.input_committed(run, shard):  # it may have failed for what is mended now
                self._raises.pop(f"{later.name}:{shard}", None)

    def _accept(self, runs: Sequence[StageRun], progress: Progress) -> bool:
        """Nothing is left to make: with accept_failed, make the failed shards rejects. True: there is more to do."""
        if not self.accept_failed or self._stopped:
            return False
        accepted = 0
        for run in runs:
            if not run.done or len(run.failed) > run.bearable:
                continue
            for shard in list(run.failed):
                if run.reject(shard):
                    progress.trouble(f"{run.name}:{shard} is accepted as rejects")
                    self._committed(run, shard, runs)
                    accepted += 1
        return accepted > 0
