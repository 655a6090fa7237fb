"""The folder of one verl run: claim it for one set of settings, tell how far it is, watch it, survive being killed.

    verl-fgrpo run-folder claim RUN key=value ...       note or check the settings of the run
    verl-fgrpo run-folder last-step RUN                 print the step of the newest checkpoint (0 without one)
    verl-fgrpo run-folder stop-leftovers RUN            end trainers that a killed shell left behind
    verl-fgrpo run-folder watch --steps N RUN=PID ...   progress bars until the processes end; exit 1 if one failed

RUN/settings.json                        what the run was started with; other settings are refused
RUN/global_step_*/                       verl's checkpoints
RUN/latest_checkpointed_iteration.txt    verl's pointer to the newest one
RUN/logs/*.jsonl, *.log                  verl's metrics and console output, one file per start (verl overwrites)
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import COUNT, command_parser
from verl_fgrpo.core.files import read_json, refuse_other_settings, write_atomic
from verl_fgrpo.runs.checkpoints import is_complete, step_folders
from verl_fgrpo.runs.logged import file_rows

POINTER = "latest_checkpointed_iteration.txt"


def claim(run: Path, settings: Mapping[str, str]) -> None:
    """Note the settings in a new run folder, or check that an old one has the same; what is not noted was "null".

    Raises:
        ValueError: the folder holds a run with other settings; resuming it would mix two experiments.
    """
    note = run / "settings.json"
    if not note.exists():
        write_atomic(note, json.dumps(dict(settings), indent=2, sort_keys=True) + "\n")
    found, asked = ({key: x for key, x in noted.items() if x != "null"} for noted in (read_json(note), settings))
    refuse_other_settings(run, found, asked, "use another OUT, the old settings, or delete the folder")


def last_checkpoint(run: Path) -> int:
    """Step of the newest complete checkpoint, 0 without one.

    verl writes its pointer last, but not atomically: a kill in between leaves it empty, and verl would fail on
    it. Then it is written anew for the newest complete folder, or removed if there is none.

    Raises:
        ValueError: the checkpoint that the pointer names is gone; verl would begin anew without a word.
    """
    pointer = run / POINTER
    try:
        if (step := int(pointer.read_text())) < 0:
            raise ValueError
    except FileNotFoundError:
        return 0
    except ValueError:
        complete = [step for step, folder in step_folders(run).items() if is_complete(folder)]
        if not complete:
            pointer.unlink()
            return 0
        step = max(complete)
        write_atomic(pointer, str(step))
    if step and step not in (folders := step_folders(run)):
        there = ", ".join(map(str, folders)) or "none"
        raise ValueError(
            f"{pointer} names step {step}, but global_step_{step} is gone (there: {there}); restore it, write the step "
            "of a complete checkpoint into the pointer, or delete the pointer to begin anew"
        )
    return step


def trainers_of(run: Path) -> list[Any]:
    """Processes (of psutil) whose command line has verl write to this folder, spelt so, or so in Hydra's quotes."""
    import psutil

    quoted = str(run).replace("'", "\\'")
    spelt = {f"trainer.default_local_dir={run}", f"trainer.default_local_dir='{quoted}'"}
    return [process for process in psutil.process_iter(["cmdline"]) if spelt & {*(process.info["cmdline"] or ())}]


def stop_leftovers(run: Path) -> int:
    """End trainers of an earlier start that still write to this folder (their shell was killed); returns how many."""
    import psutil

    leftovers = [process for process in trainers_of(run.resolve()) if process.is_running()]
    family = {child for process in leftovers for child in process.children(recursive=True)} | set(leftovers)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(list(family), timeout=10.0)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=60.0)
    return len(leftovers)


def read_metrics(run: Path) -> dict[int, dict[str, Any]]:
    """verl's metrics of all starts by step, ascending; of a step run twice the later counts."""
    rows = {step: data for path in sorted((run / "logs").glob("*.jsonl")) for step, data in file_rows(path)}
    return dict(sorted(rows.items()))


def watch(runs: Sequence[Path], steps: int, pids: Sequence[int], poll: float = 1.0) -> list[Path]:
    """Show one progress bar per run of so many steps until its process ends; returns the runs that ended before."""
    from tqdm import tqdm

    interval = 0.1 if sys.stderr.isatty() else 30.0  # a log file needs no line a second
    how = {"total": steps, "unit": "step", "mininterval": interval, "maxinterval": 2 * interval}
    bars = [tqdm(desc=f"{run.name:>8}", position=i, initial=last_checkpoint(run), **how) for i, run in enumerate(runs)]
    running = set(range(len(runs)))
    while running:
        time.sleep(poll)
        for i in sorted(running):
            rows = read_metrics(runs[i])
            newest = max(rows, default=0)
            if newest > bars[i].n:
                score = rows[newest].get("critic/score/mean")
                if score is not None:
                    bars[i].set_postfix_str(f"reward {score:.2f}", refresh=False)
                bars[i].update(newest - bars[i].n)
            if not _alive(pids[i]):
                running.discard(i)
    for bar in bars:
        bar.close()
    return [run for run in runs if last_checkpoint(run) < steps]


def _alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise argparse.ArgumentTypeError(f"{text!r} must be key=value")
    return key, value


def _run_of(text: str) -> tuple[str, int]:
    run, _, pid = text.rpartition("=")
    if not (run and pid.isdecimal() and 0 < int(pid) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} must be RUN=PID, PID the number of a process")
    return run, int(pid)


def main(arguments: Sequence[str]) -> int:
    """Run one of the helpers; 0 if all went well."""
    parser = command_parser("run-folder", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("claim", "last-step", "stop-leftovers"):
        command = commands.add_parser(name)
        command.add_argument("run", type=Path)
        if name == "claim":
            command.add_argument("settings", nargs="*", type=_setting, metavar="key=value")
    watching = commands.add_parser("watch")
    watching.add_argument("--steps", type=COUNT, required=True)
    watching.add_argument("runs", nargs="+", type=_run_of, metavar="RUN=PID")
    given = parser.parse_args(arguments)

    if given.command == "claim":
        settings = dict(given.settings)
        if len(settings) < len(given.settings):
            raise ValueError(f"a key is given twice: {' '.join(key for key, _ in given.settings)}")
        claim(given.run, settings)
    elif given.command == "last-step":
        print(last_checkpoint(given.run))
    elif given.command == "stop-leftovers":
        stopped = stop_leftovers(given.run)
        if stopped:
            print(f"ended {stopped} trainer(s) that an earlier start left behind in {given.run}", file=sys.stderr)
    else:
        failed = watch([Path(run) for run, _ in given.runs], given.steps, [pid for _, pid in given.runs])
        for run in failed:
            logs = sorted((run / "logs").glob("*.log"))
            print(f"error: {run} ended at step {last_checkpoint(run)} of {given.steps}", file=sys.stderr)
            if logs:
                print(f"the end of {logs[-1]}:", file=sys.stderr)
                print("\n".join(logs[-1].read_text(errors="replace").splitlines()[-25:]), file=sys.stderr)
        return 1 if failed else 0
    return 0
