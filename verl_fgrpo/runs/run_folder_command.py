"""Helpers for recipes around the folder of a verl run.

verl-fgrpo run-folder claim RUN key=value ...       note or check the settings of the run
verl-fgrpo run-folder last-step RUN                 print the step of the newest checkpoint (0 without one)
verl-fgrpo run-folder stop-leftovers RUN            end trainers that a killed shell left behind
verl-fgrpo run-folder watch --steps N RUN=PID ...   progress bars until the processes end; exit 1 if one failed
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, command_parser
from verl_fgrpo.runs.run_folder import claim, last_checkpoint, stop_leftovers, watch


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


def main(args: Sequence[str] | None = None) -> int:
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
    given = parser.parse_args(args)

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
