"""Rare-solution drift: does training make the base model's rarest correct solutions less likely?

    dNLL_rare = mean NLL of a fixed set under the trained model - the same under the base model

The set: of the base model's correct samples (256 training prompts x 800 rollouts), the 1% with the highest
length-normalised NLL under the base model. Source: arXiv 2602.06717, M.2.

verl-fgrpo eval nll prompts --data train.parquet --out prompts.jsonl                 # 256 training prompts
verl-fgrpo eval sample --run runs/rare --model BASE --problems prompts.jsonl --num-samples 800 ...
verl-fgrpo eval grade --run runs/rare
verl-fgrpo eval nll build --run runs/rare --model BASE --out rare.json               # rarest 1% of the correct
verl-fgrpo eval nll score --set rare.json --models GRPO=PATH F-GRPO=PATH --out dnll_rare
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.command import COUNT, SEED, named_path, torch_device
from verl_fgrpo.core.files import read_json, typed, write_atomic
from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.core.tables import markdown_table, write_table
from verl_fgrpo.evaluation.backends import TransformersBackend, prompt_tokens, resolve_model
from verl_fgrpo.evaluation.benchmarks import read_problems
from verl_fgrpo.evaluation.grading import Judged
from verl_fgrpo.evaluation.problems import Problem, ProblemKey, load_problems, save_problems
from verl_fgrpo.evaluation.prompts import build_prompt
from verl_fgrpo.evaluation.samples import Sample, SampleKey, SampleStore, Score, ScoreStore, VerdictStore, key_of
from verl_fgrpo.evaluation.significance import bootstrap_over_problems


@dataclass(frozen=True)
class Trajectory:
    """One member of the set: everything needed to score it again, and its mean NLL per token under the base model."""

    problem: Problem
    preset: str
    response: str
    finish_reason: str
    base_nll: float


class Scorer:
    """Log-likelihoods of responses under a causal language model of `transformers`.

    The response is tokenized anew from its text, which can split it differently from how it was sampled; the same split
    is used for every model with the same tokenizer. A response that ended by itself counts its end token.
    """

    def __init__(self, folder: Path, device: str = "cpu", dtype: str = "float32", batch_size: int = 8) -> None:
        self._engine = TransformersBackend(folder, device=device, dtype=dtype)
        self._batch_size = batch_size

    def identity(self) -> dict[str, Any]:
        return self._engine.identity()

    def score(self, items: Sequence[tuple[Problem, str, str, str]]) -> Iterator[tuple[float, int]]:
        """Yield (summed NLL in nats, number of tokens) for each (problem, preset, response, finish_reason)."""
        import torch

        model, tokenizer, end = self._engine.model, self._engine.tokenizer, self._engine.end_ids[0]
        for start in range(0, len(items), self._batch_size):
            rows, lengths = [], []
            for problem, preset, response, finish_reason in items[start : start + self._batch_size]:
                prompt = prompt_tokens(tokenizer, build_prompt(preset, problem))
                answer = tokenizer(response, add_special_tokens=False)["input_ids"]
                if finish_reason == "stop":
                    answer = [*answer, end]
                if not answer:
                    raise ValueError(f"an empty response to {problem.key} has no likelihood per token")
                rows.append([*prompt, *answer])
                lengths.append(len(answer))
            width = max(map(len, rows))
            ids = torch.tensor([row + [end] * (width - len(row)) for row in rows], device=model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
            with torch.inference_mode():
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                first = len(row) - length
                log_p = torch.log_softmax(logits[index, first - 1 : len(row) - 1].float(), dim=-1)
                chosen = log_p.gather(1, ids[index, first : len(row), None]).squeeze(1)
                yield -float(chosen.double().sum()), length


def rarest(scores: Sequence[Score], share: float = 0.01) -> list[Score]:
    """The `share` of scores with the highest NLL per token, rarest first; at least one, ties by key.

    Raises:
        ValueError: share not in (0, 1], or no scores.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must lie in (0, 1]")
    if not scores:
        raise ValueError("there is no correct sample to choose from")
    ordered = sorted(scores, key=lambda score: (-score.nll / score.num_tokens, key_of(score)))
    return ordered[: max(1, round(share * len(scores)))]


def build_rare_set(
    run: Path, scorer: Scorer, out: Path, share: float = 0.01, progress: bool = True
) -> list[Trajectory]:
    """Score every correct sample of a graded run of the base model and write the rarest to `out` (JSON).

    Scores are kept in RUN/scores as they come: interrupt and repeat at will. One whose response or problem has changed
    is made again.

    Raises:
        ValueError: the run was sampled with other weights than the scorer has, or has to be graded (again).
    """
    store = SampleStore(run / "samples")
    sampled_with, scored_with = store.settings.get("weights"), scorer.identity()["weights"]
    if sampled_with not in (None, scored_with):
        raise ValueError(
            f"{run} was sampled with weights {sampled_with}, the scorer has {scored_with}: the set is defined under "
            "the model that was sampled"
        )
    preset = store.settings.get("prompt_preset")
    if not isinstance(preset, str):
        raise ValueError(f"{run} holds samples made elsewhere, whose prompts are not known; sample the base model anew")
    problems = {problem.key: problem for problem in load_problems([run / "problems.jsonl"])}
    correct = {key_of(sample): sample for sample in _correct_samples(run, store, list(problems.values()))}
    if not correct:
        raise ValueError(f"{run} has no correct sample: nothing can be rare")
    chosen = rarest(_score_all(run, scorer, correct, problems, preset, progress), share)
    trajectories = []
    for score in chosen:
        sample, nll = correct[key_of(score)], score.nll / score.num_tokens
        problem = problems[score.benchmark, score.problem_id]
        trajectories.append(Trajectory(problem, preset, sample.response, sample.finish_reason, nll))
    content = {
        "base": scorer.identity(),
        "share": share,
        "correct_samples": len(correct),
        "trajectories": [asdict(trajectory) for trajectory in trajectories],
        "provenance": provenance(),
    }
    write_atomic(out, json.dumps(content, indent=1) + "\n")
    return trajectories


def _correct_samples(run: Path, store: SampleStore, problems: Sequence[Problem]) -> Iterator[Sample]:
    """The samples that are graded correct, by a verdict on the response that is there."""
    verdicts = VerdictStore(run / "verdicts")
    judged = Judged(problems, verdicts.settings)
    digests = {key_of(row): row.digest for row in verdicts.read() if row.verdict == "correct"}
    for sample in store.read():
        digest = digests.get(key_of(sample))
        if digest and digest != judged.digest(sample):
            raise ValueError(
                f"{run}: the verdict on {key_of(sample)} is on another response: run `verl-fgrpo eval grade`"
            )
        if digest is not None:
            yield sample


def _score_all(
    run: Path,
    scorer: Scorer,
    samples: Mapping[SampleKey, Sample],
    problems: Mapping[ProblemKey, Problem],
    preset: str,
    progress: bool,
) -> list[Score]:
    """The scores of all samples, as far as they are not in RUN/scores yet."""
    from tqdm import tqdm

    bound = Judged(problems.values(), {"preset": preset})
    digests = {key: bound.digest(sample) for key, sample in samples.items()}
    scores = ScoreStore(run / "scores", scorer.identity())
    with scores.writer(flush_rows=64, drop=lambda row: digests.get(key_of(row)) != row.digest) as writer:
        todo = [key for key in samples if key not in writer]
        items = [(problems[key[:2]], preset, samples[key].response, samples[key].finish_reason) for key in todo]
        done = len(samples) - len(todo)
        with tqdm(total=len(samples), initial=done, desc="scoring", disable=not progress) as bar:
            for key, (nll, length) in zip(todo, scorer.score(items), strict=True):
                writer.append(Score(*key, nll, length, digests[key]))
                bar.update()
    return list(scores.read())


def load_rare_set(path: Path) -> list[Trajectory]:
    """Read a file of `build_rare_set`. Raises ValueError if it is none."""
    found = typed(read_json(path).get("trajectories"), list[Trajectory], path)
    if not found:
        raise ValueError(f"{path} holds no trajectories; make it with `verl-fgrpo eval nll build`")
    return found


def score_rare_set(
    trajectories: Sequence[Trajectory], scorer: Scorer, name: str, progress: bool = True
) -> dict[str, Any]:
    """dNLL_rare of a model: the mean over trajectories of (NLL per token under it - the same under the base).

    Returns:
        A row with name, difference, mean_nll, base_mean_nll (nats per token), trajectories; low and high, a 95%
        bootstrap interval over the trajectories.
    """
    from tqdm import tqdm

    items = [(item.problem, item.preset, item.response, item.finish_reason) for item in trajectories]
    values = np.array(
        [nll / length for nll, length in tqdm(scorer.score(items), total=len(items), desc=name, disable=not progress)]
    )
    base = np.array([item.base_nll for item in trajectories])
    band = bootstrap_over_problems(base, values)
    means = {"mean_nll": float(values.mean()), "base_mean_nll": float(base.mean()), "trajectories": len(base)}
    return {"name": name, "difference": band.estimate, **means, "low": band.interval[0], "high": band.interval[1]}


def add_parser(all_commands: Any) -> None:
    text = {"help": "drift of rare correct solutions (dNLL_rare)", "description": __doc__}
    parser = all_commands.add_parser("nll", formatter_class=argparse.RawDescriptionHelpFormatter, **text)
    commands = parser.add_subparsers(dest="nll_command", required=True)
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


def _prompts(options: argparse.Namespace) -> None:
    problems = read_problems(options.data, "train")
    if options.num > len(problems):
        raise ValueError(f"--num {options.num} exceeds the {len(problems)} distinct problems of {options.data}")
    chosen = np.random.default_rng(options.seed).choice(len(problems), size=options.num, replace=False)
    save_problems([problems[index] for index in sorted(chosen)], options.out)
    print(f"{options.num} prompts -> {options.out}")


def _build(options: argparse.Namespace) -> None:
    folder = resolve_model(options.model, options.run)
    scorer = Scorer(folder, options.device, options.dtype, options.batch_size)
    chosen = build_rare_set(options.run, scorer, options.out, options.share)
    mean = sum(item.base_nll for item in chosen) / len(chosen)
    print(f"{len(chosen)} trajectories, mean NLL {mean:.3f} nats a token -> {options.out}")


def _score(options: argparse.Namespace) -> None:
    trajectories = load_rare_set(options.rare_set)
    rows, models = [], {}
    entries = [named_path(entry) for entry in options.models]
    named = {name or model.name: model for name, model in entries}
    if len(named) < len(entries):
        raise ValueError(f"a name is given twice in --models {' '.join(options.models)}; name each NAME=MODEL")
    for name, model in named.items():
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
