"""Overhead of verl's trainer on CPU over bare generation, forward and update.

Run: python scripts/bench_cpu_overhead.py [--prompts 32] [--group-size 8] [--steps 10] [--dir DIR]
     [--model DIR --tokenizer DIR --train-file FILE --reward FILE] [verl override ...]
Without --model it makes a toy task (about 0.4M parameters, 60-word prompts, 24-token answers).
"""

import argparse
import tempfile
from pathlib import Path

from verl_fgrpo.cpu import toy
from verl_fgrpo.cpu.benchmark import Task, report, run_bare, run_trainer


def main(args: argparse.Namespace) -> None:
    folder = Path(args.dir or tempfile.mkdtemp(prefix="bench-cpu-")).resolve()
    model, tokenizer, train_file, reward = args.model, args.tokenizer, args.train_file, args.reward
    if model is None:
        model = toy.write_model(folder / "model", hidden=args.hidden)
        tokenizer = model / "tokenizer"
        train_file = toy.write_data(folder / "train.parquet", rows=args.prompts * args.steps, prompt_words=60)
        reward = "pkg://verl_fgrpo.cpu.toy"
    elif train_file is None or reward is None:
        raise SystemExit("--model needs --train-file and --reward too (a parquet file and a compute_score of verl)")
    task = Task(
        model=Path(model).resolve(),
        tokenizer=Path(tokenizer or model).resolve(),
        train_file=Path(train_file).resolve(),
        reward=reward,
        prompts=args.prompts,
        group_size=args.group_size,
        prompt_tokens=args.prompt_tokens,
        response_tokens=args.response_tokens,
    )
    print(f"logs in {folder}; bare run, trainer, bare run ...", flush=True)
    before = run_bare(task, args.repeats, args.threads)
    trainer = run_trainer(task, folder / "run", args.steps, args.warm_up, args.overrides)
    after = run_bare(task, args.repeats, args.threads)
    bare = {part: (before[part] + after[part]) / 2 for part in before}
    print(report(task, trainer, bare))
    for part in bare:
        print(f"bare {part}: {before[part]:.2f} s before, {after[part]:.2f} s after the trainer")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hugging Face folder")
    parser.add_argument("--tokenizer", help="Hugging Face folder, default the model's")
    parser.add_argument("--train-file", help="verl parquet file")
    parser.add_argument("--reward", help="Python file (or pkg://module) with compute_score")
    parser.add_argument("--hidden", type=int, default=80, help="hidden size of the toy model")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=96)
    parser.add_argument("--response-tokens", type=int, default=24)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--repeats", type=int, default=4, help="bare steps before and after; the first is not counted")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the bare run, as in the trainer")
    parser.add_argument("--dir", help="folder to keep; default a new temporary one")
    parser.add_argument("overrides", nargs="*", help="further overrides for verl")
    main(parser.parse_args())
