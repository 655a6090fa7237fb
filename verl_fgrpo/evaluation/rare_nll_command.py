"""Rare-solution drift dNLL_rare (arXiv 2602.06717, M.2).

verl-fgrpo eval nll prompts --data train.parquet --out prompts.jsonl                 # 256 training prompts
verl-fgrpo eval sample --run runs/rare --model BASE --problems prompts.jsonl --num-samples 800 ...
verl-fgrpo eval grade --run runs/rare
verl-fgrpo eval nll build --run runs/rare --model BASE --out rare.json               # rarest 1% of the correct
verl-fgrpo eval nll score --set rare.json --models GRPO=PATH F-GRPO=PATH --out dnll_rare
"""

import argparse
from pathlib import Path

from verl_fgrpo.core.command import COUNT, SEED, command_parser, named_path, torch_device


def main(arguments: list[str] | None = None) -> None:
    parser = command_parser("eval nll", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prompts = commands.add_parser("prompts", help="choose prompts of a training file in verl's format")
    prompts.add_argument("--data", required=True, type=Path, help=".parquet, .jsonl or .json")
    prompts.add_argument("--num", type=COUNT, default=256)
    prompts.add_argument("--seed", type=SEED, default=0)
    prompts.add_argument("--out", required=True, type=Path)
    prompts.set_defaults(run_command=_prompts)
    build = commands.add_parser("build", help="build the fixed set from a graded run of the base model")
    build.add_argument("--run", required=True, type=Path)
    build.add_argument("--share", type=float, default=0.01)
    build.add_argument("--out", required=True, type=Path)
    build.add_argument("--model", required=True, help="the base model that was sampled")
    build.set_defaults(run_command=_build)
    score = commands.add_parser("score", help="score the set under other models")
    score.add_argument("--set", required=True, type=Path, dest="rare_set")
    score.add_argument("--models", nargs="+", required=True, metavar="NAME=MODEL")
    score.add_argument("--out", required=True, type=Path, help="path without suffix of the .md, .csv and .json")
    score.set_defaults(run_command=_score)
    for command in (build, score):
        command.add_argument("--device", type=torch_device, default="cpu")
        command.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
        command.add_argument("--batch-size", type=COUNT, default=8)
    options = parser.parse_args(arguments)
    options.run_command(options)


def _prompts(options: argparse.Namespace) -> None:
    import numpy as np

    from verl_fgrpo.evaluation.benchmarks import read_problems
    from verl_fgrpo.evaluation.problems import save_problems

    problems = read_problems(options.data, "train")
    if options.num > len(problems):
        raise ValueError(f"--num {options.num} exceeds the {len(problems)} distinct problems of {options.data}")
    chosen = np.random.default_rng(options.seed).choice(len(problems), size=options.num, replace=False)
    save_problems([problems[index] for index in sorted(chosen)], options.out)
    print(f"{options.num} prompts -> {options.out}")


def _build(options: argparse.Namespace) -> None:
    from verl_fgrpo.evaluation.backends import resolve_model
    from verl_fgrpo.evaluation.rare_nll import Scorer, build_rare_set

    folder = resolve_model(options.model, options.run)
    scorer = Scorer(folder, options.device, options.dtype, options.batch_size)
    chosen = build_rare_set(options.run, scorer, options.out, options.share)
    mean = sum(item.base_nll for item in chosen) / len(chosen)
    print(f"{len(chosen)} trajectories, mean NLL {mean:.3f} nats a token -> {options.out}")


def _score(options: argparse.Namespace) -> None:
    from verl_fgrpo.core.tables import markdown_table, write_table
    from verl_fgrpo.evaluation.backends import resolve_model
    from verl_fgrpo.evaluation.rare_nll import Scorer, load_rare_set, score_rare_set

    trajectories = load_rare_set(options.rare_set)
    rows, models = [], {}
    for entry in options.models:
        name, model = named_path(entry)
        name = name or model.name
        cache = options.out.parent / f"{options.out.name}-{name}"
        scorer = Scorer(resolve_model(str(model), cache), options.device, options.dtype, options.batch_size)
        rows.append(score_rare_set(trajectories, scorer, name))
        models[name] = scorer.identity()
    cells: list[list[object]] = []
    for row in rows:
        difference, interval = f"{row['difference']:+.3f}", f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        means = f"{row['mean_nll']:.3f}", f"{row['base_mean_nll']:.3f}"
        cells.append([row["name"], difference, interval, *means, row["trajectories"]])
    columns = ("dNLL_rare", "95% interval", "mean NLL", "base", "trajectories")
    markdown = markdown_table(["model", *columns], cells)
    write_table(rows, options.out, markdown, models=models)
    print(markdown)
