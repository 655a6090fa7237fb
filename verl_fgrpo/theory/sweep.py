"""The categorical simulation of arXiv 2602.06717 (section 5.1) over group sizes, focal_gamma and seeds, in one CSV.

    verl-fgrpo simulate                 # the published sweep: 136 runs of 1000 steps
    verl-fgrpo simulate --quick         # 5 group sizes, 1 seed
    verl-fgrpo simulate --group-sizes 8 64 --focal-gammas 0 0.5 1 --seeds 0 1

Interrupt it when you like: the same command goes on where it stopped. The whole CSV is replaced after every finished
job; a JSON beside it holds the settings, and a sweep only continues a file made with the same ones. Figures:
verl-fgrpo figures.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, command_parser, torch_device
from verl_fgrpo.core.files import lock, read_json, refuse_other_settings, typed, write_atomic, write_json
from verl_fgrpo.core.processes import worker_pool
from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.theory.simulation import NUM_ACTIONS, NUM_CORRECT, Trajectory, published_logits, simulate_batch

PUBLISHED_GROUP_SIZES = tuple(2**power for power in range(1, 18))  # 2 ... 131,072
COLUMNS = ("group_size", "focal_gamma", "seed", "step", "q_pos", "m_ret", "entropy", "anchor")
RunKey = tuple[int, float, int]  # group_size, focal_gamma, seed


@dataclass(frozen=True)
class SweepConfig:
    """A sweep; the defaults are the published one (arXiv 2602.06717, section 5.1 and App. J): 136 runs."""

    group_sizes: tuple[int, ...] = PUBLISHED_GROUP_SIZES
    focal_gammas: tuple[float, ...] = (0.0, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    steps: int = 1000
    record_every: int = 10
    learning_rate: float = 1e-2
    optimizer: Literal["adam", "sgd"] = "adam"
    num_actions: int = NUM_ACTIONS
    num_correct: int = NUM_CORRECT
    anchor_logit: float = 5.0
    correct_logit: float = 3.0
    wrong_logit: float = 0.0
    reward_correct: float = 1.0
    reward_wrong: float = -1.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("group_sizes", "focal_gammas", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must hold distinct values, at least one, got {values!r}")
        if self.record_every < 1:
            raise ValueError(f"record_every must be >= 1 step, got {self.record_every!r}")

    def settings(self) -> dict[str, Any]:
        """What every run in one CSV must share: all but the lists of runs."""
        return {k: v for k, v in asdict(self).items() if k not in ("group_sizes", "focal_gammas", "seeds")}


QUICK = SweepConfig(group_sizes=(2, 32, 1024, 16384, 131072), seeds=(0,))  # shows the three regimes in a minute


def run_sweep(config: SweepConfig, output: Path, workers: int = 1, progress: bool = True) -> Path:
    """Run what `output` does not hold yet and return `output`.

    Jobs go from the largest group size down, so that no worker ends alone on the longest. A run's numbers depend
    neither on the order, nor on the workers, nor on what else is in the sweep.

    Args:
        output: CSV with one row per recorded step (columns: `COLUMNS`); `output` + ".json" holds settings and versions.
        workers: processes with one thread each. On a CUDA device use 1: all runs of a group size then form one batch.

    Raises:
        ValueError: workers < 1, an existing output made with other settings, or an output without its settings, or
            another process writes it.
    """
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers!r}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with lock(output.with_name(f".{output.name}.lock")):
        rows = _load_for_resume(config, output)
        jobs = _open_jobs(config, finished=set(rows))
        total = len(config.group_sizes) * len(config.focal_gammas) * len(config.seeds)
        done = total - sum(len(runs) for _, runs in jobs)
        write_json(settings_path(output), {"settings": config.settings(), **provenance(("torch", "numpy"))})
        with tqdm(total=total, initial=done, unit="run", desc="simulate", disable=not progress) as bar:
            for trajectories in _results(config, jobs, workers):
                for trajectory in trajectories:
                    rows[(trajectory.group_size, trajectory.focal_gamma, trajectory.seed)] = _rows(trajectory, config)
                write_atomic(output, "".join(_csv_lines(rows)))
                bar.update(len(trajectories))
    return output


def default_output(quick: bool) -> Path:
    """Where a sweep's CSV is if nothing else is said."""
    return Path("outputs/theory") / ("categorical_quick.csv" if quick else "categorical.csv")


def settings_path(output: Path) -> Path:
    """Path of the JSON that belongs to a sweep's CSV."""
    return output.with_name(output.name + ".json")


def stored_runs(output: Path) -> dict[RunKey, list[list[str]]]:
    """Rows of every run in a sweep's CSV, cells in the order of `COLUMNS`, steps ascending.

    Raises:
        ValueError: it is none.
    """
    rows: dict[RunKey, list[list[str]]] = {}
    try:
        with output.open(newline="", encoding="utf-8") as file:
            header, *lines = [*csv.reader(file)] or [list(COLUMNS)]
        if tuple(header) != COLUMNS:
            raise ValueError(f"columns {', '.join(header)}")
        for cells in lines:
            group_size, gamma, seed, *values = cells
            if len([float(value) for value in values]) != len(COLUMNS) - 3:
                raise ValueError(f"{len(cells)} cells in a row")
            rows.setdefault((int(group_size), float(gamma), int(seed)), []).append(cells)
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{output} is no CSV of verl-fgrpo simulate ({error!r}); move it away, or restore it"
        ) from error
    return rows


def stored_settings(output: Path) -> dict[str, Any]:
    """What a sweep's runs share, from the JSON beside its CSV.

    Raises:
        ValueError: it does not tell.
    """
    path = settings_path(output)
    found = typed(read_json(path).get("settings"), dict[str, Any], path)
    if absent := sorted(set(SweepConfig().settings()) - set(found)):
        raise ValueError(f"{path} does not tell {', '.join(absent)}; restore it, or simulate into another file")
    return found


def final_rows(output: Path) -> str:
    """The last recorded step of every run of a sweep, as CSV text."""
    return "".join(_csv_lines({key: rows[-1:] for key, rows in stored_runs(output).items()}))


def _open_jobs(config: SweepConfig, finished: set[RunKey]) -> list[tuple[int, list[tuple[float, int]]]]:
    seeds_at_once = len(config.seeds) if config.device.startswith("cuda") else 1
    jobs = []
    for group_size in sorted(config.group_sizes, reverse=True):
        for first in range(0, len(config.seeds), seeds_at_once):
            seeds = config.seeds[first : first + seeds_at_once]
            runs = [(g, s) for s in seeds for g in config.focal_gammas if (group_size, g, s) not in finished]
            if runs:
                jobs.append((group_size, runs))
    return jobs


def _results(
    config: SweepConfig, jobs: list[tuple[int, list[tuple[float, int]]]], workers: int
) -> Iterator[list[Trajectory]]:
    if workers == 1:
        for group_size, runs in jobs:
            yield _simulate(config, group_size, runs)
        return
    with worker_pool(workers, partial(torch.set_num_threads, 1)) as pool:
        for future in as_completed([pool.submit(_simulate, config, *job) for job in jobs]):
            yield future.result()


def _simulate(config: SweepConfig, group_size: int, runs: Sequence[tuple[float, int]]) -> list[Trajectory]:
    levels = {"anchor": config.anchor_logit, "correct": config.correct_logit, "wrong": config.wrong_logit}
    logits = published_logits(config.num_actions, config.num_correct, **levels)
    names = ("num_correct", "reward_correct", "reward_wrong", "learning_rate", "optimizer", "device")
    return simulate_batch(
        group_size, runs, config.steps, logits=logits, **{name: getattr(config, name) for name in names}
    )


def _rows(trajectory: Trajectory, config: SweepConfig) -> list[list[str]]:
    run = [str(trajectory.group_size), repr(trajectory.focal_gamma), str(trajectory.seed)]
    series = (trajectory.q_pos, trajectory.m_ret, trajectory.entropy, trajectory.anchor)
    recorded = sorted({*range(0, config.steps + 1, config.record_every), config.steps})
    return [[*run, str(step), *(f"{values[step]:.9g}" for values in series)] for step in recorded]


def _load_for_resume(config: SweepConfig, output: Path) -> dict[RunKey, list[list[str]]]:
    if not output.exists():
        return {}
    if not settings_path(output).exists():
        raise ValueError(
            f"{output} exists without {settings_path(output).name}, so its settings are unknown: move it away"
        )
    refuse_other_settings(output, stored_settings(output), config.settings(), "choose another output file")
    return stored_runs(output)


def _csv_lines(rows: dict[RunKey, list[list[str]]]) -> Iterator[str]:
    yield ",".join(COLUMNS) + "\n"
    for key in sorted(rows):
        for row in rows[key]:
            yield ",".join(row) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and run the sweep."""
    defaults = SweepConfig()  # the published sweep
    parser = command_parser("simulate", __doc__)
    parser.add_argument("--group-sizes", type=COUNT, nargs="+", help="default: 2, 4, ..., 131072")
    parser.add_argument("--focal-gammas", type=float, nargs="+", default=defaults.focal_gammas)
    parser.add_argument("--seeds", type=SEED, nargs="+", help="default: 0 1 2 3")
    parser.add_argument("--steps", type=COUNT, default=defaults.steps)
    parser.add_argument("--record-every", type=COUNT, default=defaults.record_every, help="steps between CSV rows")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default=defaults.optimizer)
    parser.add_argument("--num-actions", type=COUNT, default=defaults.num_actions)
    parser.add_argument("--num-correct", type=COUNT, default=defaults.num_correct)
    for name in ("learning_rate", "anchor_logit", "correct_logit", "wrong_logit", "reward_correct", "reward_wrong"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(defaults, name))
    parser.add_argument("--device", type=torch_device, default=defaults.device, help="of torch, e.g. cpu or cuda")
    parser.add_argument("--workers", type=PROCESSES, default=os.cpu_count() or 1, help="processes; 1 on a CUDA device")
    parser.add_argument("--output", type=Path, help="CSV; default outputs/theory/categorical[_quick].csv")
    parser.add_argument("--quick", action="store_true", help=f"group sizes {QUICK.group_sizes}, seed 0")
    args = parser.parse_args(arguments)

    chosen = QUICK if args.quick else defaults
    settings = {name: getattr(args, name) for name in defaults.settings()}
    config = SweepConfig(
        group_sizes=tuple(args.group_sizes or chosen.group_sizes),
        focal_gammas=tuple(args.focal_gammas),
        seeds=tuple(args.seeds or chosen.seeds),
        **settings,
    )
    workers = 1 if args.device.startswith("cuda") else args.workers
    print(run_sweep(config, args.output or default_output(args.quick), workers))
