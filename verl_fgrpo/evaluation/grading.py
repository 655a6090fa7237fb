"""Grade samples: every sample gets exactly one verdict, equal responses are graded once, and grading can be resumed.

From a program, one round of sampling and grading (a sequential design calls them again with the problems that need
more samples, and a larger number):

    store = sample_run(run, problems, backend, num_samples, decoding, preset, progress=False)   # generation.py
    verdicts = grade_store(store, run / "verdicts", problems, num_workers=2, progress=False)
    correct = Counter(row.problem_id for row in verdicts.read() if row.verdict == "correct")
"""

import hashlib
import json
import time
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.evaluation.graders import ANSWER_CHARACTERS, DEFAULTS, Graded, GraderOptions
from verl_fgrpo.evaluation.problems import Problem, ProblemKey
from verl_fgrpo.evaluation.samples import REFUSED, Sample, SampleStore, Verdict, VerdictStore, key_of
from verl_fgrpo.evaluation.workers import DEFAULT_LIMITS, GradingPool, Limits, Task

WINDOW = 32_768  # samples held in memory at a time (twice as many while the workers finish a window) ...
WINDOW_CHARACTERS = 2**25  # ... or as many as have so many characters
REMEMBERED = 2**17  # verdicts on texts that may come again; the oldest are forgotten
TASK_RESPONSES = 256  # to one worker at a time
TASK_CHARACTERS = 2**24  # or as many as have so many characters: the worker holds them all
CHECKED_SHARE = 32  # with `fast`, one distinct response in so many is graded by the unchanged library too
CHECKED_AT_ONCE = 512  # so many of them, or TASK_CHARACTERS
T = TypeVar("T")
ResponseKey = tuple[str, str, str]  # benchmark, problem id, digest of a response: see `Judged.digest`
GRADER_PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy", "lm-eval")
#: What a grader reads of `Problem.extra`.
NEEDED_EXTRA = {"ifeval": ("instruction_id_list", "kwargs"), "synlogic": ("task", "game_data_str")}
#: Errors of the machine, not of the response: what is missing may be there the next time.
MACHINE_ERRORS = (
    *("ModuleNotFoundError:", "ImportError:", "LookupError:", "PermissionError:", "FileNotFoundError:"),
    *("RuntimeError:", "ReplError:"),  # Lean cannot be started
)
#: What is graded before anything else, where an empty response would not reach all that the grader needs.
PROBES = {"ifeval": "One sentence. Another.", "mathlib": "  trivial\n```"}


def grading_settings(limits: Limits, options: GraderOptions = DEFAULTS) -> dict[str, Any]:
    """What a verdict depends on besides sample and problem; stored with the verdicts: different ones never mix.

    Of the options, those that are not the defaults.
    """
    return {
        "seconds": float(limits.seconds),
        "memory_mib": int(limits.memory_mib),
        "options": {name: value for name, value in asdict(options).items() if value != getattr(DEFAULTS, name)},
        "answer_characters": ANSWER_CHARACTERS,
        "versions": provenance(GRADER_PACKAGES)["versions"],
    }


class Judged:
    """Which verdicts belong to the samples that are there: a verdict is bound to what it judges by a digest.

    The digest is of the response and how it ended, of the problem (kind, gold answers, prompt, extra) and of the
    grading settings (`VerdictStore.settings`). A reader of verdicts, who reads the samples anyway, adds each and then
    asks `holds`. Memory: 8 bytes a sample.
    """

    def __init__(self, problems: Iterable[Problem], settings: Mapping[str, Any]) -> None:
        self._problems = {problem.key: problem for problem in problems}
        self._settings = json.dumps(dict(settings), sort_keys=True)
        self._begun: dict[ProblemKey, Any] = {}
        self._digests: dict[ProblemKey, array[int]] = {}
        self.samples = 0

    def digest(self, sample: Sample) -> str:
        """16 hexadecimal digits, never 0.

        Raises:
            ValueError: the sample's problem is unknown.
        """
        key = (sample.benchmark, sample.problem_id)
        if key not in self._begun:
            if key not in self._problems:
                raise ValueError(f"sample of unknown problem {key}: give the file of problems that was sampled")
            problem = self._problems[key]
            judge = [self._settings, problem.kind, list(problem.answers), problem.prompt, dict(problem.extra)]
            self._begun[key] = hashlib.sha256(json.dumps(judge, sort_keys=True).encode())
        digest = self._begun[key].copy()
        digest.update(f"{sample.finish_reason}\0{sample.response}".encode("utf-8", "surrogatepass"))
        return f"{int.from_bytes(digest.digest()[:8], 'big') or 1:016x}"

    def add(self, sample: Sample) -> None:
        """Note a sample that is there."""
        digests = self._digests.setdefault((sample.benchmark, sample.problem_id), array("Q"))
        digests.extend([0] * (sample.sample_idx + 1 - len(digests)))
        self.samples += digests[sample.sample_idx] == 0
        digests[sample.sample_idx] = int(self.digest(sample), 16)

    def holds(self, verdict: Verdict) -> bool:
        """Whether the verdict is on a sample that was added; never for one of an earlier version, without digest."""
        digests = self._digests.get((verdict.benchmark, verdict.problem_id), ())
        found = digests[verdict.sample_idx] if verdict.sample_idx < len(digests) else 0
        return found != 0 and f"{found:016x}" == verdict.digest


@dataclass
class FastCheck:
    """What comparing some fast verdicts with those of the unchanged library found."""

    compared: int = 0  # distinct responses graded both ways
    # one line for each that got two verdicts; time-outs of either do not count
    different: list[str] = field(default_factory=list)

    def compare(self, sample: Sample, fast: Graded, unchanged: Graded) -> None:
        """Note one pair; the sample names it."""
        self.compared += 1
        if "timeout" not in (fast[0], unchanged[0]) and fast[:2] != unchanged[:2]:
            self.different.append(
                f"{sample.benchmark}/{sample.problem_id} sample {sample.sample_idx}: fast {fast[0]} ({fast[1]!r}), "
                f"unchanged {unchanged[0]} ({unchanged[1]!r})"
            )


def grade_samples(
    samples: Iterable[Sample],
    problems: Mapping[ProblemKey, Problem],
    limits: Limits = DEFAULT_LIMITS,
    num_workers: int = 1,
    options: GraderOptions = DEFAULTS,
    check: FastCheck | None = None,
    ray: bool = False,
) -> Iterator[Verdict]:
    """Yield one verdict per sample, in order of completion.

    Two samples of a problem with the same response are graded once, as long as its verdict is remembered. A prompt
    that the server refused gets the verdict `refused`. Memory: two windows of 32,768 samples or 32 Mi characters, and
    131,072 verdicts.

    Args:
        samples: read once, in windows.
        problems: by key.
        limits: of one response.
        num_workers: processes; with `ray` one for each CPU of a Ray cluster instead.
        options: of the graders. With `fast`, one distinct response in 32, and the first, is also graded by the
            unchanged library, whose verdict counts.
        check: takes the result of that comparison.

    Raises:
        ValueError: a sample of an unknown problem.
        RuntimeError: a grader that the problems need is missing.
    """
    source = iter(samples)
    if (first := next(source, None)) is None:
        return
    run = _Run(chain([first], source), problems, Judged(problems.values(), grading_settings(limits, options)))
    unchanged = replace(options, fast=False)
    with _pool(ray, limits, num_workers, options) as pool, _pool(ray, limits, num_workers, unchanged) as second:
        _refuse_missing_graders(pool, problems.values())
        graded = pool.grade_tasks(run.tasks())
        yield from run.verdicts(_checked(graded, second, run, check or FastCheck()) if options.fast else graded)


def _pool(ray: bool, limits: Limits, num_workers: int, options: GraderOptions) -> GradingPool:
    if not ray:
        return GradingPool(limits, num_workers, options)
    from verl_fgrpo.evaluation.ray_grading import RayPool

    return RayPool(limits, options)


def grade_store(
    store: SampleStore,
    destination: Path | str,
    problems: Iterable[Problem],
    limits: Limits = DEFAULT_LIMITS,
    num_workers: int = 1,
    options: GraderOptions = DEFAULTS,
    progress: bool = True,
    regrade: bool = False,
    say: Callable[[str], None] = lambda line: None,
    ray: bool = False,
) -> VerdictStore:
    """Grade what is not yet graded of a sample store into the folder `destination`; interrupt and repeat at will.

    Graded again: a sample whose response, problem or gold answer has changed, one of which a grader was missing, and
    all that an earlier version graded without binding verdicts to responses.

    Args:
        limits, num_workers, options, ray: see `grade_samples`.
        regrade: delete the verdicts and begin anew.
        say: takes lines that tell what was done, the speed among them.

    Raises:
        ValueError: the verdicts there were made with other settings, or another process grades.
        RuntimeError: a grader is missing, or fast verdicts differ from the unchanged library's (whose are stored).
    """
    from tqdm import tqdm

    by_key = {problem.key: problem for problem in problems}
    settings = grading_settings(limits, options)
    verdicts = VerdictStore.emptied(destination, settings) if regrade else VerdictStore(destination, settings)
    judged = Judged(by_key.values(), settings)
    for sample in store.read():
        judged.add(sample)
    dropped = []

    def drop(row: Verdict) -> bool:
        stale = not judged.holds(row)
        if stale or (row.verdict == "error" and row.detail.startswith(MACHINE_ERRORS)):
            dropped.append(stale)
            return True
        return False

    check = FastCheck()
    with verdicts.writer(flush_rows=1024, drop=drop) as writer:
        present = sum(map(len, writer.present.values()))
        if dropped:
            say(f"graded again: {judged.samples - present} samples, some of which changed or had no grader")
        todo = (row for row in store.read() if key_of(row) not in writer)
        started = time.monotonic()
        graded = grade_samples(todo, by_key, limits, num_workers, options, check, ray)
        with tqdm(total=judged.samples, initial=present, desc="grading", unit="sample", disable=not progress) as bar:
            for verdict in graded:
                writer.append(verdict)
                bar.update()
    if count := judged.samples - present:
        seconds = time.monotonic() - started
        where = "Ray" if ray else f"{num_workers} workers"
        say(f"graded {count:,} samples in {seconds:.1f} s: {count / seconds:.0f} samples/s with {where}")
    if check.compared:
        say(
            f"fast grading: {check.compared:,} distinct responses were graded by unchanged math-verify too, "
            f"{len(check.different)} verdicts differ"
        )
    if check.different:
        shown = "\n".join(check.different[:20])
        raise RuntimeError(
            f"fast grading differs from math-verify in {len(check.different)} of {check.compared} compared responses; "
            f"stored are math-verify's verdicts on these. Grade without --fast, with --regrade:\n{shown}"
        )
    return verdicts


def _refuse_missing_graders(pool: GradingPool, problems: Iterable[Problem]) -> None:
    """Grade a response to one problem of each kind: what its grader needs is there, or nothing is graded.

    Of IFEval one of each instruction, as some need NLTK's data.
    """
    problems = list(problems)
    for problem in problems:
        if absent := [name for name in NEEDED_EXTRA.get(problem.kind, ()) if name not in problem.extra]:
            raise RuntimeError(
                f"{problem.benchmark}/{problem.problem_id} of kind {problem.kind} has no {absent[0]} in `extra`, "
                "so nobody knows what is right: take the files of `verl-fgrpo data benchmarks`"
            )
    needs: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        instructions = problem.extra.get("instruction_id_list")
        for need in instructions if isinstance(instructions, list) else [""]:
            needs[problem.kind, str(need)] = problem
    for (kind, _), problem in needs.items():
        verdict, _, detail = pool.grade(problem, PROBES.get(kind, ""))
        if verdict == "error" and detail.startswith(MACHINE_ERRORS):
            raise RuntimeError(f"problems of kind {problem.kind} cannot be graded: {detail.partition(': ')[2]}")


class _Run:
    """The bookkeeping of one `grade_samples`: which samples wait for the verdict on which distinct response."""

    def __init__(self, source: Iterator[Sample], problems: Mapping[ProblemKey, Problem], judged: Judged) -> None:
        self._source = source
        self.problems = problems
        self._judged = judged
        self._known: dict[ResponseKey, Graded] = {}
        self._ready: deque[Verdict] = deque()
        self.pending: dict[ResponseKey, list[Sample]] = {}

    def tasks(self) -> Iterator[Task]:
        """What the workers have to grade: distinct responses that are not known, problem by problem."""
        for window in _parts(self._source, lambda sample: sample.response, WINDOW, WINDOW_CHARACTERS):
            groups: dict[ResponseKey, list[Sample]] = {}
            for sample in window:
                key = (sample.benchmark, sample.problem_id, self._judged.digest(sample))
                if sample.finish_reason == REFUSED:
                    self._ready.append(_verdict(sample, key, (REFUSED, None, sample.detail)))
                elif key in self._known:
                    self._ready.append(_verdict(sample, key, self._known[key]))
                elif key in self.pending:  # a worker has it now
                    self.pending[key].append(sample)
                else:
                    groups.setdefault(key, []).append(sample)
            self.pending.update(groups)
            yield from _tasks(groups, self.problems)

    def verdicts(self, graded: Iterable[tuple[ResponseKey, Graded]]) -> Iterator[Verdict]:
        """The verdicts on all samples, from those on the distinct responses."""
        for key, verdict in graded:
            self._known[key] = verdict
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
            for sample in self.pending.pop(key):
                yield _verdict(sample, key, verdict)
            while self._ready:
                yield self._ready.popleft()
        yield from self._ready


def _checked(
    graded: Iterable[tuple[ResponseKey, Graded]], unchanged: GradingPool, run: _Run, check: FastCheck
) -> Iterator[tuple[ResponseKey, Graded]]:
    """Grade some of the responses again with the unchanged library; its verdicts replace the fast ones."""
    held: dict[ResponseKey, Graded] = {}
    characters = 0

    def compared() -> Iterator[tuple[ResponseKey, Graded]]:
        firsts = {key: run.pending[key][:1] for key in held}
        for key, verdict in unchanged.grade_tasks(_tasks(firsts, run.problems)):
            check.compare(firsts[key][0], held[key], verdict)
            yield key, verdict
        held.clear()

    for number, (key, verdict) in enumerate(graded):
        if number and int(key[2], 16) % CHECKED_SHARE:
            yield key, verdict
            continue
        held[key] = verdict
        characters += len(run.pending[key][0].response)
        if len(held) >= CHECKED_AT_ONCE or characters >= TASK_CHARACTERS:
            yield from compared()
            characters = 0
    yield from compared()


def _verdict(sample: Sample, key: ResponseKey, graded: Graded) -> Verdict:
    return Verdict(sample.benchmark, sample.problem_id, sample.sample_idx, *graded, digest=key[2])


def _tasks(groups: Mapping[ResponseKey, list[Sample]], problems: Mapping[ProblemKey, Problem]) -> Iterator[Task]:
    by_problem: dict[ProblemKey, list[ResponseKey]] = defaultdict(list)
    for key in groups:
        by_problem[key[:2]].append(key)
    for problem_key, keys in by_problem.items():
        for part in _parts(keys, lambda key: groups[key][0].response, TASK_RESPONSES, TASK_CHARACTERS):
            yield Task(problems[problem_key], [groups[key][0].response for key in part], list(part))


def _parts(items: Iterable[T], text: Callable[[T], str], most: int, most_characters: int) -> Iterator[list[T]]:
    """Lists of at most `most` neighbouring items; one whose texts reach `most_characters` ends there."""
    part: list[T] = []
    characters = 0
    for item in items:
        part.append(item)
        characters += len(text(item))
        if len(part) >= most or characters >= most_characters:
            yield part
            part, characters = [], 0
    if part:
        yield part
