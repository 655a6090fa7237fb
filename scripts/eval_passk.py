"""pass@k evaluation: sample a model, grade the samples, report, compare.

    python scripts/eval_passk.py sample  --run runs/grpo --model MODEL --problems data/math500.jsonl --backend vllm
    python scripts/eval_passk.py grade   --run runs/grpo
    python scripts/eval_passk.py report  --runs GRPO=runs/grpo F-GRPO=runs/fgrpo --out report
    python scripts/eval_passk.py compare --base GRPO=runs/grpo --focal F-GRPO=runs/fgrpo --out comparison

Every command has --help; all can be interrupted and repeated.
"""

from verl_fgrpo.evaluation.cli import main

if __name__ == "__main__":
    main(description=__doc__)
