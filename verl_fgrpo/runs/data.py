"""Build data files.

    verl-fgrpo data benchmarks --out data/benchmarks                         # all nine, from the hub
    verl-fgrpo data benchmarks --out data/benchmarks --only aime24 math500   # some of them
    verl-fgrpo data benchmarks --out data/benchmarks --only aime24 --local aime24=aime.json

    verl-fgrpo data problems --data val.parquet --name maze --kind maze --out val.jsonl   # verl's format
    verl-fgrpo data train --model Qwen/Qwen2.5-7B --preset qwen2.5 --out data/deepscaler-qwen2.5 \\
        --validation data/benchmarks/{aime24,aime25,amc23,math500,minerva,olympiadbench}.jsonl

benchmarks: one JSON-lines file each, for `verl-fgrpo eval sample --problems`.
train: DeepScaleR as train.parquet and benchmarks as val.parquet for verl, where the recipes look for them, with
manifest.json (counts after every step, next to the paper's 39,202). Presets: qwen2.5, qwen3, llama3 (paper, Table 9).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, command_parser, shown_text


def main(arguments: Sequence[str]) -> None:
    parser = command_parser("data", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    benchmarks = commands.add_parser("benchmarks", help="the evaluation benchmarks, in one schema, sizes checked")
    benchmarks.add_argument("--out", required=True, type=Path)
    benchmarks.add_argument("--only", nargs="+", metavar="NAME", help="default: the paper's nine")
    benchmarks.add_argument("--local", nargs="+", default=[], metavar="NAME=FILE", help=".json, .jsonl or .parquet")
    benchmarks.add_argument("--any-size", action="store_true", help="do not check the number of problems")
    benchmarks.add_argument("--list", action="store_true", help="print sources and sizes and stop")
    benchmarks.set_defaults(run_command=_benchmarks)
    problems = commands.add_parser("problems", help="a file of problems, e.g. in verl's format, as a benchmark")
    problems.add_argument("--data", required=True, type=Path, help=".json, .jsonl or .parquet")
    problems.add_argument("--name", type=shown_text, required=True, help="of the benchmark")
    problems.add_argument("--kind", default="math", help="how it is graded: math, choice, maze, proofs or mathlib")
    problems.add_argument("--out", required=True, type=Path)
    problems.set_defaults(run_command=_problems)
    train = commands.add_parser("train", help="the training file for verl, from DeepScaleR")
    train.add_argument("--out", required=True, type=Path, help="folder")
    train.add_argument("--model", required=True, help="hub id or folder: its tokenizer and chat template count tokens")
    train.add_argument("--preset", required=True, help="prompt preset: qwen2.5, qwen3, llama3")
    train.add_argument("--source", type=Path, help=".json, .jsonl or .parquet; default: DeepScaleR from the hub")
    train.add_argument("--validation", type=Path, nargs="+", default=[], help="files of `benchmarks`")
    train.add_argument("--max-tokens", type=COUNT, default=1024, help="longest prompt (paper, Table 5: 1024)")
    train.set_defaults(run_command=_train)
    options = parser.parse_args(arguments)
    options.run_command(options)


def _benchmarks(options: argparse.Namespace) -> None:
    from verl_fgrpo.evaluation.benchmarks import BENCHMARKS, load_benchmark
    from verl_fgrpo.evaluation.problems import save_problems

    if options.list:
        for name, benchmark in BENCHMARKS.items():
            size = " or ".join(map(str, benchmark.sizes)) or "any"
            print(f"{name:14} {size:>10} problems  {'/'.join(filter(None, benchmark.hub))}: {benchmark.note}")
        return
    if wrong := [entry for entry in options.local if "=" not in entry]:
        raise ValueError(f"--local {wrong[0]!r} must be NAME=FILE, e.g. aime24=aime.json")
    local = dict(entry.split("=", 1) for entry in options.local)
    names = options.only or [name for name, benchmark in BENCHMARKS.items() if benchmark.block]
    if unused := sorted(set(local) - set(names)):
        raise ValueError(f"--local names {unused}, which --only leaves out")
    failed: dict[str, str] = {}
    for name in names:
        try:
            problems = load_benchmark(name, local.get(name), check_size=not options.any_size)
        except (ValueError, RuntimeError, OSError) as error:
            failed[name] = str(error)
            continue
        save_problems(problems, options.out / f"{name}.jsonl")
        print(f"{name}: {len(problems)} problems -> {options.out / f'{name}.jsonl'}")
    if failed:
        raise RuntimeError("; ".join([f"not written: {', '.join(failed)}", *failed.values()]))


def _problems(options: argparse.Namespace) -> None:
    from verl_fgrpo.evaluation.benchmarks import read_problems
    from verl_fgrpo.evaluation.problems import save_problems

    problems = read_problems(options.data, options.name, options.kind)
    save_problems(problems, options.out)
    print(f"{options.name}: {len(problems)} problems -> {options.out}")


def _train(options: argparse.Namespace) -> None:
    from verl_fgrpo.runs.deepscaler import prepare

    counts = prepare(options.out, options.model, options.preset, options.source, options.validation, options.max_tokens)
    print(counts.describe())
    print(f"-> {options.out}/train.parquet" + (f", {options.out}/val.parquet" if options.validation else ""))
    if not options.validation:
        print("no --validation: verl needs a validation file too; give one, or point VAL_FILE elsewhere")
