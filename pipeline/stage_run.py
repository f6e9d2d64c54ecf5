"""One stage of a run, as the driver sees it: prepare (take from the base, or plan), track its shards, finish."""

import logging
import textwrap
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from pipeline.commits import (
    MANIFEST,
    PLAN,
    STATS,
    TAKEN,
    CommitRecord,
    Manifest,
    StageFolder,
    StagePlan,
    Taken,
    Whole,
    identity_of,
    record_path,
    resolve_folder,
)
from pipeline.errors import InputError, RecipeError
from pipeline.failpoints import failpoint
from pipeline.fingerprint import differences, fingerprint_of, parts_of, refuse_other, told
from pipeline.integrity import damage, fault_of, refuse_to_remake
from pipeline.ledger import Ledger, Unbelieved
from pipeline.stage import Input, Need, Plan, Shard, Stage
from pipeline.storage import SCRATCH
from pipeline.writer import Job, reject_shard

FEW, BEARABLE_SHARE = 20, 0.01
MAX_REMADE = 3
TOLD_CHARS = 300
MANY = 1000  # shards, from which on a person who waits is told what for
log = logging.getLogger("pipeline")


@dataclass
class StageRun:
    stage: Stage[Any]
    folder: StageFolder  # where its files lie: the run's root, or the base's
    upstream: Mapping[str, "StageRun | StageFolder"]  # input key → this run's stage, or another root's
    job: Job | None = None  # None: not prepared yet, an input needed whole is missing
    shards: dict[str, Shard] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    ready: OrderedDict[str, None] = field(default_factory=OrderedDict)  # in the order in which they became so
    running: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)  # shard → cause, in one line
    whole: Whole | None = None
    _planned: str | None = None  # fingerprint
    _remade: Counter[str] = field(default_factory=Counter)  # shards, because their files or records were broken

    @property
    def name(self) -> str:
        return self.stage.name

    # ── before: what it is made of, and whether it is there already ──

    def look(self) -> None:
        """At the stage as the root has it, and change nothing.

        Raises FingerprintMismatch where it was made with other settings, InputError where its base was made anew since.
        """
        parts, taken, plan = self._parts(), self.folder.taken(), self.folder.plan()
        if parts:
            self._compare(parts, taken, plan)
        elif plan and not taken:
            self._compare_known(plan)
        if taken or self.folder.manifest():
            self.whole = Whole.open(self.folder.root, self.name)
        self._planned = plan.fingerprint if plan else None

    def _compare_known(self, plan: StagePlan) -> None:
        """All but the inputs that are not there yet: else stages before this one would be made, and it be refused."""
        pins = self._pins()
        known = {key: pin for key, pin in pins.items() if pin is not None}
        made = {key: pin for key, pin in plan.parts["inputs"].items() if key in known or key not in pins}
        refuse_other(self.folder.root, self.name, {**plan.parts, "inputs": made}, parts_of(self.stage, known))

    def _compare(self, parts: dict[str, Any], taken: Taken | None, plan: StagePlan | None) -> None:
        if taken and taken.wanted != fingerprint_of(parts):
            theirs = Whole.open(self.folder.root, self.name).folder.plan()
            refuse_other(self.folder.root, self.name, theirs.parts if theirs else {}, parts)
        if plan and not taken:
            refuse_other(self.folder.root, self.name, plan.parts, parts)

    def prepare(self, base: str | None, accept: Sequence[str]) -> None:
        """Take the stage from the base, or read or write its plan; nothing yet where an input that it needs whole is
        not.

        Raises FingerprintMismatch where the root holds the stage made with other settings.
        """
        parts = self._parts()
        if parts and not self._take(parts, base, accept):
            self._plan(parts)

    def _parts(self) -> dict[str, Any] | None:
        """What the fingerprint is made of, or None where it cannot be said of an input yet."""
        inputs = self._pins()
        pins = {key: pin for key, pin in inputs.items() if pin is not None}
        return parts_of(self.stage, pins) if len(pins) == len(inputs) else None

    def _pins(self) -> dict[str, str | None]:
        return {source.key: self._pin(source) for source in self.stage.inputs}

    def _pin(self, source: Input) -> str | None:
        """What the fingerprint says of an input, or None where it cannot be said yet."""
        found = self.upstream[source.key]
        if isinstance(found, StageFolder):
            return Whole.open(found.root, found.stage).identity
        if source.need is Need.WHOLE:
            return found.whole.identity if found.whole else None
        return found.fingerprint

    @property
    def fingerprint(self) -> str | None:
        if self.whole:
            return self.whole.manifest.fingerprint
        return self.job.fingerprint if self.job else self._planned

    def _take(self, parts: dict[str, Any], base: str | None, accept: Sequence[str]) -> bool:
        """True: the stage is whole in the base and the same (or accepted as it is), and is read from there."""
        taken = self.folder.taken()
        if taken is None and base is not None and self.folder.plan() is None:
            taken = self._offer(parts, base, accept)
            if taken and not self.folder.store.create(TAKEN, taken.model_dump_json(indent=1).encode()):
                taken = self.folder.taken()
        if taken is None:
            return False
        self._compare(parts, taken, None)
        whole = Whole.open(self.folder.root, self.name)
        self.folder, self.whole = whole.folder, whole
        self._track(plan=whole.plan(), fingerprint=whole.manifest.fingerprint)
        return True

    def _offer(self, parts: dict[str, Any], base: str, accept: Sequence[str]) -> Taken | None:
        wanted = fingerprint_of(parts)
        if not resolve_folder(base, self.name).manifest():
            return None
        whole = Whole.open(base, self.name)
        same = whole.manifest.fingerprint == wanted and whole.manifest.inputs == self._identities()
        if not (same or self.name in accept):
            self._say_why_not_taken(whole, parts)
            return None
        for chained in self._chained():
            if chained.shards.keys() != whole.manifest.shards.keys():
                raise RecipeError(f"base.accept: {self.name} in {base} has other shards than {chained.name} here")
        return Taken(
            root=whole.folder.root, fingerprint=whole.manifest.fingerprint, wanted=wanted, identity=whole.identity
        )

    def _say_why_not_taken(self, whole: Whole, parts: dict[str, Any]) -> None:
        """Of its own settings: what they make anew, all behind it follows, and that may be a crawl."""
        theirs = {**whole.plan().parts, "inputs": parts["inputs"]}
        if fields := told(differences(theirs, parts)):
            shown = textwrap.shorten(fields, TOLD_CHARS, placeholder=" …")
            log.info("%s is not taken from %s: %s", self.name, whole.folder.root, shown)

    def _plan(self, parts: dict[str, Any]) -> None:
        plan = self.folder.plan()
        if plan is None:
            made = self._shards_to_make()
            plan = StagePlan(
                format=2,
                fingerprint=fingerprint_of(parts),
                parts=parts,
                resolved=dict(made.resolved),
                shards=[(shard.id, dict(shard.params)) for shard in made.shards],
            )
            failpoint(self.name, "plan")
            if not self.folder.store.create(PLAN, plan.model_dump_json(indent=1).encode()):
                plan = self.folder.plan()
                assert plan is not None, "another driver has just created it"
        self._compare(parts, None, plan)
        self.whole = self._believed()
        self._track(plan, plan.fingerprint)

    def _believed(self) -> Whole | None:
        """The stage as its manifest has it. Where files are gone since, or an input was made anew, the manifest goes,
        and the records of what is broken: that is made again."""
        manifest = self.folder.manifest()
        if manifest is None:
            return None
        if len(manifest.shards) >= MANY:
            log.info("%s: comparing %s finished shards with their files", self.name, f"{len(manifest.shards):,}")
        faults = damage(self.folder, manifest)
        if not faults and manifest.inputs == self._identities():
            return Whole.open(self.folder.root, self.name)
        if self.folder.manifest() != manifest:
            return self._believed()  # another driver is mending it
        broken = {shard: fault for fault, shard in faults.items() if shard}
        refuse_to_remake(self.folder, list(broken.values()), len(manifest.shards))
        self.folder.store.delete([MANIFEST])
        Whole.open.cache_clear()
        self._make_again(broken)
        return None

    def _make_again(self, faults: Mapping[str, str]) -> None:
        """faults: shard → why. Raises InputError where that was done before and has not helped."""
        for shard, fault in faults.items():
            self._remade[shard] += 1
            where = f"{self.folder.root}/{self.name}/{fault}"
            if self._remade[shard] > MAX_REMADE:
                raise InputError(f"{where}: shard {shard} was made {MAX_REMADE} times in vain")
            log.warning("%s: shard %s is made again", where, shard)
        self.folder.store.delete(record_path(shard) for shard in faults)

    def _shards_to_make(self) -> Plan:
        chained = self._chained()
        if chained:
            return Plan([Shard(shard) for shard in chained[0].shards])
        return self.stage.plan({source.key: self._whole(source) for source in self.stage.inputs})

    def _whole(self, source: Input) -> Whole:
        found = self.upstream[source.key]
        whole = Whole.open(found.root, found.stage) if isinstance(found, StageFolder) else found.whole
        assert whole is not None, "planned only when its inputs are whole"
        return whole

    def _track(self, plan: StagePlan, fingerprint: str) -> None:
        sources = {k: u if isinstance(u, StageFolder) else u.folder for k, u in self.upstream.items()}
        self.job = Job(self.stage, self.folder, sources, fingerprint, plan.resolved)
        self.shards = {shard: Shard(shard, params) for shard, params in plan.shards}
        self.done = set(self.shards) if self.whole else self.folder.sweep_records() & self.shards.keys()
        ready = (shard for shard in self.shards if shard not in self.done and self._inputs_done(shard))
        self.ready = OrderedDict.fromkeys(ready)

    # ── during: which shards can start ──

    def _chained(self) -> list["StageRun"]:
        found = [self.upstream[s.key] for s in self.stage.inputs if s.need is Need.SAME_SHARD]
        return [run for run in found if isinstance(run, StageRun)]

    def _inputs_done(self, shard: str) -> bool:
        return all(shard in run.done for run in self._chained())

    def input_committed(self, upstream: "StageRun", shard: str) -> bool:
        """A shard of a stage of this run was committed. True: this stage's has waited for it, and can start."""
        waits = shard not in self.done and shard not in self.running
        if not (self.job and waits and upstream in self._chained() and self._inputs_done(shard)):
            return False
        self.failed.pop(shard, None)  # of an input that was broken and is made again
        self.ready[shard] = None
        return True

    def start_next(self) -> Shard:
        shard, _ = self.ready.popitem(last=False)
        self.running.add(shard)
        return self.shards[shard]

    def committed(self, shard: str) -> None:
        self.running.discard(shard)
        self.failed.pop(shard, None)
        self.done.add(shard)

    def try_again(self, shard: str) -> None:
        self.running.discard(shard)
        self.ready[shard] = None

    def give_up(self, shard: str, cause: str) -> None:
        """cause: of a traceback its last line is kept; all of it was logged."""
        self.running.discard(shard)
        self.failed[shard] = cause.strip().splitlines()[-1]

    @property
    def bearable(self) -> int:
        """How many shards may fail and be left to their own fault; more have a cause in common."""
        return max(FEW, int(len(self.shards) * BEARABLE_SHARE))

    def reject(self, shard: str) -> bool:
        """Commit a failed shard as rejects. False: the run cannot do without it, or its rows cannot be told."""
        assert self.job is not None, "only a stage that was prepared has failed shards"
        try:
            return reject_shard(self.job, self.shards[shard], self.failed[shard]) is not None
        except Exception as error:  # noqa: BLE001 - what it reads may be what is broken
            log.warning("%s:%s cannot be accepted: %s", self.name, shard, error)
            return False

    @property
    def complete(self) -> bool:
        return self.job is not None and len(self.done) == len(self.shards)

    # ── after: the manifest ──

    def finish(self) -> bool:
        """Read every record, write stats and the manifest. False: some shards have to be made again."""
        assert self.job is not None, "finished only after it was prepared"
        if len(self.shards) >= MANY:
            log.info("%s: reading %s commit records", self.name, f"{len(self.shards):,}")
        sizes = self.folder.store.list("")
        ledger = Ledger.of(self.shards, lambda shard: self._record(shard, sizes))
        self._refuse_changed_inputs()
        if ledger.unbelieved:
            lost = [found.why for found in ledger.unbelieved.values() if found.lost]
            refuse_to_remake(self.folder, lost, len(self.shards))
            self._make_again({shard: found.why for shard, found in ledger.unbelieved.items()})
            self.done -= ledger.unbelieved.keys()
            self.ready |= dict.fromkeys(ledger.unbelieved)
            return False
        self.folder.store.write(STATS, ledger.stats())
        self._delete_but(ledger.named, sizes)
        failpoint(self.name, "stats")
        manifest = Manifest(
            stage=self.name,
            fingerprint=self.job.fingerprint,
            identity=identity_of(ledger.shards),
            inputs=self._identities(),
            shards=ledger.shards,
        )
        self.folder.store.create(MANIFEST, manifest.model_dump_json(indent=1).encode())
        failpoint(self.name, "manifest")
        self.whole = Whole.open(self.folder.root, self.name)
        return True

    def _identities(self) -> dict[str, str]:
        """Of the inputs that are whole. An input that is not whole has none yet, so nothing compares equal to it."""
        found = {s.key: self.upstream[s.key] for s in self.stage.inputs}
        wholes = {k: Whole.open(u.root, u.stage) if isinstance(u, StageFolder) else u.whole for k, u in found.items()}
        return {key: whole.identity for key, whole in wholes.items() if whole}

    def _refuse_changed_inputs(self) -> None:
        """Raises InputError where another driver made an input anew since this one read it."""
        for run in self._chained():
            manifest = run.folder.manifest()
            if run.whole is None or manifest is None or manifest.identity != run.whole.identity:
                raise InputError(
                    f"{run.folder.root}/{run.name} is being made anew by another driver; when it has ended, give the "
                    "same command again"
                )

    def _record(self, shard: str, sizes: Mapping[str, int]) -> tuple[CommitRecord, int] | Unbelieved:
        """The record and its bytes, or why it cannot be believed."""
        try:
            record, size = self.folder.record_and_bytes(shard)
        except (InputError, FileNotFoundError) as error:
            return Unbelieved(str(error))
        if self.job and record.fingerprint != self.job.fingerprint:
            return Unbelieved(f"{record_path(shard)} was made with other settings")
        for run in self._chained():
            assert run.whole is not None, "stages finish in order"
            if record.inputs[run.name] != run.whole.manifest.shards[shard].identity:
                return Unbelieved(f"{record_path(shard)} was made of another {run.name} shard")
        fault = fault_of(self.folder, record, sizes)
        return Unbelieved(fault, lost=True) if fault else (record, size)

    def _delete_but(self, named: Set[str], sizes: Mapping[str, int]) -> None:
        """Files of attempts that lost or died."""
        ours = (path for path in sizes if path.split("/")[0] in ("data", "rejects", SCRATCH))
        self.folder.store.delete(sorted(path for path in ours if path not in named))
