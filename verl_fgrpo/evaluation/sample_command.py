"""`verl-fgrpo eval sample`: draw samples of a model."""

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, torch_device
from verl_fgrpo.evaluation.backends import TransformersBackend, VllmRayBackend, resolve_model
from verl_fgrpo.evaluation.counts import StopRule
from verl_fgrpo.evaluation.generation import Backend, Decoding, plan_text, sample_run
from verl_fgrpo.evaluation.openai_backend import OpenAIBackend
from verl_fgrpo.evaluation.problems import Problem, load_problems
from verl_fgrpo.evaluation.prompts import PRESETS
from verl_fgrpo.evaluation.sequential import expected_text, graded_so_far, sample_until_correct


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("sample", help="draw samples; repeat to resume, with a larger --num-samples to top up")
    parser.add_argument("--run", required=True, type=Path, help="folder of the run")
    parser.add_argument("--model", required=True, help="hub id, Hugging Face folder, or verl checkpoint folder")
    parser.add_argument("--problems", nargs="+", required=True, type=Path, help="files of `verl-fgrpo data benchmarks`")
    parser.add_argument("--benchmarks", nargs="+", help="only these of the files; default all")
    parser.add_argument("--limit", type=COUNT, help="only the first problems of each benchmark (for trying out)")
    parser.add_argument("--num-samples", type=COUNT, default=1024)
    parser.add_argument("--stop-after-correct", type=COUNT, metavar="R", help="until R are correct, graded in rounds")
    parser.add_argument("--grade-workers", type=PROCESSES, default=os.cpu_count() or 1, help="that grade these rounds")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=-1)
    parser.add_argument("--max-tokens", type=COUNT, default=8192)
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument("--preset", default="qwen2.5", choices=tuple(PRESETS), help="prompts by model family")
    parser.add_argument("--backend", required=True, choices=("vllm", "openai", "transformers"))
    parser.add_argument("--revision", help="of a hub model")
    parser.add_argument("--url", default="http://localhost:8000/v1", help="openai: the server")
    parser.add_argument("--concurrency", type=COUNT, help="openai: requests in flight; vllm: engines")
    parser.add_argument("--extra-body", type=_json_object, default={}, help="openai: JSON sent with every request")
    parser.add_argument("--tensor-parallel-size", type=COUNT, default=1, help="vllm: GPUs per engine")
    parser.add_argument("--engine-kwargs", type=_json_object, default={}, help="vllm: JSON, more engine arguments")
    parser.add_argument("--batch-size", type=COUNT, help="transformers: samples at once; vllm: requests per task")
    parser.add_argument("--device", type=torch_device, default="cpu", help="transformers")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="transformers")
    parser.add_argument("--tokens-per-second", type=float, help="for the estimate before anything was sampled")
    parser.add_argument("--retry-refused", action="store_true", help="openai: ask again for prompts it refused before")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load verl shards that hold more than tensors: can run code of whoever wrote them",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.set_defaults(run_command=_sample)


def _sample(options: argparse.Namespace) -> None:
    decoding = Decoding(options.temperature, options.top_p, options.top_k, options.max_tokens, options.seed)
    if options.tokens_per_second is not None and options.tokens_per_second <= 0:
        raise ValueError(f"--tokens-per-second {options.tokens_per_second} must be positive")
    problems = _first_of_each(load_problems(options.problems, options.benchmarks), options.limit)
    rule = StopRule(options.num_samples, options.stop_after_correct)
    speed, retry = options.tokens_per_second, options.retry_refused
    print(plan_text(options.run, problems, options.num_samples, decoding, speed, retry), flush=True)
    if options.stop_after_correct is not None:
        print(expected_text(graded_so_far(options.run), [problem.key for problem in problems], rule), flush=True)
    if options.dry_run:
        return
    backend = _backend(options)
    more: dict[str, Any] = {"retry_refused": retry, "say": print}
    if options.stop_after_correct is not None:
        workers = options.grade_workers
        sample_until_correct(options.run, problems, backend, rule, decoding, options.preset, workers, **more)
    else:
        sample_run(options.run, problems, backend, options.num_samples, decoding, options.preset, **more)


def _first_of_each(problems: list[Problem], limit: int | None) -> list[Problem]:
    """The first `limit` problems of each benchmark."""
    taken: Counter[str] = Counter()
    kept = []
    for problem in problems:
        taken[problem.benchmark] += 1
        if limit is None or taken[problem.benchmark] <= limit:
            kept.append(problem)
    return kept


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} must be a JSON object such as '{{\"top_k\": -1}}'")
    return value


def _backend(options: argparse.Namespace) -> Backend:
    if options.backend == "openai":
        key = os.environ.get("OPENAI_API_KEY")
        return OpenAIBackend(options.url, options.model, options.concurrency or 64, key, extra_body=options.extra_body)
    folder = resolve_model(options.model, options.run, options.revision, options.trust_checkpoint)
    if options.backend == "vllm":
        size, engines, batch = options.tensor_parallel_size, options.concurrency, options.batch_size or 256
        return VllmRayBackend(folder, size, engines, batch, options.engine_kwargs)
    return TransformersBackend(folder, options.batch_size or 32, options.device, options.dtype)
