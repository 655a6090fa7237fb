"""Real runs of verl's own trainer on the CPU: every integration, its metrics, checkpoint, resume, validation.

One start of verl costs about a minute, so each checks several things. The recipe itself: test_maze_recipe.py.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from math import comb
from pathlib import Path

import numpy as np
import pytest

from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.runs.audit import main as audit_command

pytestmark = pytest.mark.verl_start

GROUP = 8
PROMPTS = 8


def run_verl(mazes, run, *overrides, timeout=1200, modules=None):
    """`python -m verl.trainer.main_ppo` on the CPU; returns its metrics by step and its console output."""
    data, manifest = mazes
    run.mkdir(exist_ok=True)
    metrics = run / f"metrics-{len(list(run.glob('metrics-*')))}.jsonl"
    command = [
        sys.executable,
        "-m",
        "verl.trainer.main_ppo",
        "+platform=cpu",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/val.parquet",
        f"data.train_batch_size={PROMPTS}",
        "data.seed=1",
        f"data.max_prompt_length={manifest['prompt_tokens']}",
        f"data.max_response_length={manifest['response_limit']}",
        f"actor_rollout_ref.model.path={data}/start_model",
        "actor_rollout_ref.actor.optim.lr=1e-4",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        f"actor_rollout_ref.rollout.n={GROUP}",
        "reward.custom_reward_function.path=pkg://verl_fgrpo.tasks.maze.rewards",
        "reward.custom_reward_function.name=compute_score",
        "trainer.total_epochs=100",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.resume_mode=auto",
        f"trainer.default_local_dir={run}",
        f"trainer.rollout_data_dir={run}/rollouts",
        "trainer.logger=[console,file]",
        *overrides,
    ]
    environment = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_FILE_LOGGER_PATH": str(metrics),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if modules is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout, cwd=run)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {row["step"]: row["data"] for row in rows}, result.stdout + result.stderr


def dumped(run: Path, step: int) -> list[dict]:
    """verl's own dump of a step's rollouts, without the rows it fills a batch up with."""
    rows = [json.loads(line) for line in (run / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
    return [row for row in rows if not row["uid"].startswith("pad")]


def success_rates(run: Path, step: int) -> dict[str, float]:
    """Success rate of every group, recomputed from verl's own dump: one score per session of an agent loop."""
    scores = defaultdict(dict)
    for row in dumped(run, step):
        uid, session, _ = row["uid"].rsplit("_", 2)
        scores[uid][session] = row["score"]
    assert {len(group) for group in scores.values()} == {GROUP}
    return {uid: float(np.mean(list(group.values()))) for uid, group in scores.items()}


def check_focal_metrics(logged, rates, gamma, unexplained=0):
    """Every focal metric against its definition, computed from the success rates of the groups."""
    mu = np.array(list(rates.values()))
    correct = (mu * GROUP).round().astype(int)
    active = (correct > 0) & (correct < GROUP)
    expected = {
        "focal/active_share": active.mean(),
        "focal/all_correct_share": (correct == GROUP).mean(),
        "focal/all_wrong_share": (correct == 0).mean(),
        "focal/weight_mean": ((1 - mu) ** gamma).mean(),
        "focal/tail_miss_risk": np.where(active, 0.9**correct, 0.0).mean(),
        "focal/unexplained_groups": unexplained,
        **{f"focal/success_rate/p{p}": np.quantile(mu, p / 100) for p in (10, 25, 50, 75, 90)},
        **{f"focal/train_pass@{k}": pass_at_k(GROUP, correct, k).mean() for k in (1, 2, 4, 8)},
    }
    assert {key for key in logged if key.startswith("focal/")} == {*expected, "focal/update_scale"}
    assert {key: logged[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def expected_update_scale(run, step, rates, gamma):
    """sum g |A| / sum |A| over rollouts and tokens; a maze's response is its words and the end token."""
    weighted = plain = 0.0
    for row in dumped(run, step):
        mu = rates[row["uid"].rsplit("_", 2)[0]]
        std = (mu * (1 - mu) * GROUP / (GROUP - 1)) ** 0.5
        size = abs(row["score"] - mu) / (std + 1e-6) * (len(row["output"].split()) + 1)
        plain += size
        weighted += (1 - mu) ** gamma * size
    return weighted / plain


def expected_advantages(rates, gamma):
    """Smallest and largest focal advantage of a batch: (1 - mu)^gamma * (R - mu) / (std + 1e-6), Bessel-corrected."""
    values = [0.0]
    for mu in rates.values():
        std = (mu * (1 - mu) * GROUP / (GROUP - 1)) ** 0.5
        rewards = [reward for reward, present in ((1.0, mu > 0), (0.0, mu < 1)) if present]
        values += [(1 - mu) ** gamma * (reward - mu) / (std + 1e-6) for reward in rewards]
    return min(values), max(values)


def check_advantages(logged, rates, gamma):
    """verl's logged extremes of the advantages against the formula."""
    low, high = expected_advantages(rates, gamma)
    assert logged["critic/advantages/min"] == pytest.approx(low, rel=1e-4)
    assert logged["critic/advantages/max"] == pytest.approx(high, rel=1e-4)


def audit(run, *arguments):
    """`verl-fgrpo audit` of a run, which must agree with the run's log to 1e-6 in every step."""
    (log,) = run.glob("metrics-*.jsonl")
    assert audit_command([str(run / "rollouts"), "--log", str(log), *map(str, arguments)]) == 0


REWARD_WITH_ACC = """
from verl_fgrpo.tasks.maze.rewards import is_correct_answer


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    correct = is_correct_answer(solution_str, ground_truth)
    return {"score": float(correct), "acc": correct}
"""


def test_f_grpo_in_plain_sync_with_a_reward_that_reports_acc(mazes, tmp_path, capsys):
    """Weights and metrics, the line of proof, checkpoint, validation and the audit of one run."""
    run = tmp_path / "f_grpo"
    run.mkdir()
    (run / "told.py").write_text(REWARD_WITH_ACC)
    logged, output = run_verl(
        mazes,
        run,
        "+focal=grpo",
        "algorithm.focal_gamma=1.0",
        "algorithm.focal_success_threshold=9.0",  # would make everything wrong, were acc not to decide
        f"reward.custom_reward_function.path={run}/told.py",
        "trainer.total_training_steps=2",
        "trainer.save_freq=2",
        "trainer.test_freq=2",
        "actor_rollout_ref.rollout.val_kwargs.n=2",
        "actor_rollout_ref.rollout.val_kwargs.do_sample=True",
        "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
        f"trainer.validation_data_dir={run}/validation",
    )
    assert set(logged) == {1, 2}
    assert output.count("verl_fgrpo: first update by f_grpo: gamma 1 (algorithm.focal_gamma); success told by acc") == 1
    audit(run, "--focal-gamma", 1.0)
    assert "2 steps" in capsys.readouterr().out
    active = 0
    for step, metrics in logged.items():
        rates = success_rates(run, step)
        active += sum(0 < mu < 1 for mu in rates.values())
        check_advantages(metrics, rates, gamma=1.0)
        assert metrics["critic/score/mean"] == pytest.approx(np.mean(list(rates.values())), rel=1e-5)
        check_focal_metrics(metrics, rates, gamma=1.0)
        # a response cut off at the length limit has no end token, which the dump does not show
        scale = expected_update_scale(run, step, rates, gamma=1.0)
        assert metrics["focal/update_scale"] == pytest.approx(scale, rel=0.02)
    assert active, "the start model must solve some mazes sometimes, or nothing is tested"
    assert (run / "latest_checkpointed_iteration.txt").read_text() == "2"
    assert list((run / "global_step_2/actor/huggingface").glob("*.safetensors"))
    validated = [json.loads(line) for line in (run / "validation" / "2.jsonl").read_text().splitlines()]
    assert len(validated) == 8 * 2
    accuracy = [value for key, value in logged[2].items() if key.startswith("val-core/") and "mean@2" in key]
    assert accuracy == [pytest.approx(np.mean([row["score"] for row in validated]))]
    solved = {row["uid"].rsplit("_", 2)[0] for row in validated if row["score"]}  # by one of two samples
    passk = {key.rsplit("/", 1)[1]: value for key, value in logged[2].items() if key.startswith("val-passk/")}
    assert passk == {"pass@1": accuracy[0], "pass@2": pytest.approx(len(solved) / 8)}


def test_f_vanilla_on_verls_own_grpo_logs_what_the_weight_did(mazes, tmp_path):
    run = tmp_path / "f_vanilla"
    metrics, _ = run_verl(
        mazes,
        run,
        "+focal=grpo_loss",
        "algorithm.focal_gamma=0.5",
        "trainer.v1.trainer_mode=focal_sync",  # the old name of sync
        "trainer.total_training_steps=2",
    )
    assert set(metrics) == {1, 2}
    for step, logged in metrics.items():
        groups = success_rates(run, step)
        check_focal_metrics(logged, groups, gamma=0.5)
        scale = expected_update_scale(run, step, groups, gamma=0.5)
        assert logged["focal/update_scale"] == pytest.approx(scale, rel=0.02)
        rates = np.array(list(groups.values()))
        active = (rates > 0) & (rates < 1)
        assert active.any()
        assert logged["critic/advantages/max"] == pytest.approx(
            expected_advantages({i: mu for i, mu in enumerate(rates)}, gamma=0.0)[1], rel=1e-4
        )
        # verl averages over micro-batches, which hold about but not exactly equally many rows
        assert logged["actor/focal/active_share"] == pytest.approx(active.mean(), rel=0.1)
        weight = np.where(active, (1 - rates) ** 0.5, 1.0)
        assert logged["actor/focal/weight_mean"] == pytest.approx(weight.mean(), rel=0.1)
        assert logged["actor/focal/success_rate"] == pytest.approx((rates * active).mean(), rel=0.2)


@pytest.mark.full
def test_a_bad_gamma_stops_the_run_before_any_update_and_says_why(mazes, tmp_path):
    with pytest.raises(AssertionError, match=r"policy_loss\.focal_gamma is -1"):
        run_verl(
            mazes, tmp_path / "bad", "+focal=grpo_loss", "algorithm.focal_gamma=-1", "trainer.total_training_steps=1"
        )


TWO_OUTPUTS = """
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class OneOrTwoOutputs(SingleTurnAgentLoop):
    async def run(self, sampling_params, **kwargs):
        whole = await super().run(sampling_params, **kwargs)
        if not TWO or kwargs["session_id"] % 2:
            return whole
        half = max(len(whole.response_ids) // 2, 1)
        first = whole.model_copy(deep=True, update={
            "response_ids": whole.response_ids[:half],
            "response_mask": whole.response_mask[:half],
            "response_logprobs": whole.response_logprobs and whole.response_logprobs[:half],
        })
        return [first, whole]
"""


@pytest.mark.full
def test_two_outputs_in_half_of_the_sessions_give_the_weights_of_one(mazes, tmp_path):
    logged = {}
    for outputs in (1, 2):
        run = tmp_path / f"outputs{outputs}"
        run.mkdir()
        (run / "outputs_agent.py").write_text(f"TWO = {outputs == 2}\n" + TWO_OUTPUTS)
        (run / "agents.yaml").write_text("- {name: one_or_two_outputs, _target_: outputs_agent.OneOrTwoOutputs}\n")
        logged[outputs], _ = run_verl(
            mazes,
            run,
            "+focal=grpo",
            "algorithm.focal_gamma=1.0",
            "trainer.total_training_steps=2",
            "actor_rollout_ref.rollout.agent.default_agent_loop=one_or_two_outputs",
            f"actor_rollout_ref.rollout.agent.agent_loop_config_path={run}/agents.yaml",
            "+actor_rollout_ref.rollout.engine_kwargs.hf.quiet_seconds=1.0",  # one batch, so the same random numbers
            modules=run,
        )
        for step, metrics in logged[outputs].items():
            assert len(dumped(run, step)) == PROMPTS * GROUP * (1.5 if outputs == 2 else 1)
            rates = success_rates(run, step)
            check_focal_metrics(metrics, rates, gamma=1.0)
            check_advantages(metrics, rates, gamma=1.0)
    assert logged[1][1]["focal/active_share"] > 0
    # one seed and one batch: the first step's rollouts are the same
    one, two = ({k: v for k, v in logged[n][1].items() if k.startswith("focal/")} for n in (1, 2))
    assert two == pytest.approx(one)


TWO_SOURCES = """
from verl_fgrpo.tasks.maze.rewards import is_correct_answer


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    if data_source == "code":
        return 1.0 if is_correct_answer(solution_str, ground_truth) else 0.6
    return float(is_correct_answer(solution_str, ground_truth))
"""


def test_two_thresholds_sessions_of_two_outputs_and_kl_in_the_reward(mazes, tmp_path):
    """What plain sync could not do before the seams, in one run; the reward before KL alone tells success."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    run = tmp_path / "mixed"
    run.mkdir()
    table = pq.read_table(mazes[0] / "train.parquet")
    sources = pa.array(["code" if row % 2 else "maze" for row in range(len(table))])
    table = table.set_column(table.column_names.index("data_source"), "data_source", sources)
    pq.write_table(table, run / "train.parquet")
    (run / "mixed.py").write_text(TWO_SOURCES)
    (run / "outputs_agent.py").write_text("TWO = True\n" + TWO_OUTPUTS)
    (run / "agents.yaml").write_text("- {name: one_or_two_outputs, _target_: outputs_agent.OneOrTwoOutputs}\n")
    logged, _ = run_verl(
        mazes,
        run,
        "+focal=grpo",
        "+algorithm.focal_success_threshold_by_source={maze:0.5,code:0.99}",
        f"data.train_files={run}/train.parquet",
        "algorithm.use_kl_in_reward=True",
        "algorithm.rollout_correction.bypass_mode=False",
        "actor_rollout_ref.rollout.agent.default_agent_loop=one_or_two_outputs",
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={run}/agents.yaml",
        f"reward.custom_reward_function.path={run}/mixed.py",
        "trainer.total_training_steps=2",
        modules=run,
    )
    assert set(logged) == {1, 2}
    for step, metrics in logged.items():
        scores = defaultdict(dict)
        for row in dumped(run, step):
            uid, session, _ = row["uid"].rsplit("_", 2)
            scores[uid][session] = row["score"]
        assert len(dumped(run, step)) == PROMPTS * GROUP * 1.5 and {len(group) for group in scores.values()} == {GROUP}
        assert len({value for group in scores.values() for value in group.values()}) == 3
        rates = {uid: float(np.mean([score > 0.99 for score in group.values()])) for uid, group in scores.items()}
        check_focal_metrics(metrics, rates, gamma=0.5)
    thresholds = ["--threshold-by-source", "maze=0.5", "code=0.99", "--data-file", run / "train.parquet"]
    audit(run, "--focal-gamma", 0.5, *thresholds)


@pytest.mark.full
def test_success_is_seen_through_a_shaped_reward_and_kl_in_the_reward(mazes, tmp_path):
    """Every reward is negative and depends on length, so only `acc` tells success; KL moves it further."""
    run = tmp_path / "shaped"
    run.mkdir()
    (run / "shaped.py").write_text(
        "from verl_fgrpo.tasks.maze.rewards import is_correct_answer\n"
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):\n"
        "    correct = is_correct_answer(solution_str, ground_truth)\n"
        "    return {'score': -1.0 - 0.01 * len(solution_str) + 0.5 * correct, 'acc': correct}\n"
    )
    logged, _ = run_verl(
        mazes,
        run,
        "+focal=grpo",
        "algorithm.use_kl_in_reward=True",
        "algorithm.rollout_correction.bypass_mode=False",
        "algorithm.rollout_correction.rollout_is=token",
        f"reward.custom_reward_function.path={run}/shaped.py",
        "trainer.total_training_steps=2",
    )
    for step, metrics in logged.items():
        groups, scores = defaultdict(list), defaultdict(set)
        for row in dumped(run, step):
            assert row["score"] < 0
            uid = row["uid"].rsplit("_", 2)[0]
            groups[uid].append(row["output"].split() == row["gts"].split())
            scores[uid].add(row["score"])
        rates = {uid: float(np.mean(group)) for uid, group in groups.items()}
        assert 0 < np.mean(list(rates.values())) < 1
        by_length = sum(rates[uid] in (0, 1) and len(scores[uid]) > 1 for uid in rates)
        check_focal_metrics(metrics, rates, gamma=0.5, unexplained=by_length)


@pytest.mark.full
def test_focal_colocate_async(mazes, tmp_path):
    run = tmp_path / "async"
    logged, _ = run_verl(
        mazes,
        run,
        "+focal=grpo",
        "algorithm.focal_gamma=1.0",
        "trainer.v1.trainer_mode=focal_colocate_async",
        "trainer.v1.sampler.custom_sampler.path=null",  # the fast one samples synchronously
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null",  # the grouped one cannot resume a rollout
        "reward.num_workers=1",
        "trainer.total_training_steps=2",
    )
    assert set(logged) == {1, 2}
    for step, metrics in logged.items():
        rates = success_rates(run, step)
        check_focal_metrics(metrics, rates, gamma=1.0)
        check_advantages(metrics, rates, gamma=1.0)


def response_log_probs(data, rows):
    """Log-probability of every dumped response under the start model, which drew those of step 1, and its length."""
    import torch

    from verl_fgrpo.tasks.common.model import load_model
    from verl_fgrpo.tasks.maze.tokenizer import TOKENIZER

    model = load_model(data / "start_model")
    limit = json.loads((data / "manifest.json").read_text())["response_limit"]
    values = []
    for row in rows:
        prompt, response = TOKENIZER.encode(row["input"]), TOKENIZER.encode(row["output"])
        response += [TOKENIZER.end_id] * (len(response) < limit)  # the dump leaves it out; one at the limit was cut off
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.double().log_softmax(-1)[range(len(response)), response]
        values.append((chosen.sum().item(), len(response)))
    return values


def sibling_advantages(method, mu, group):
    """Advantage of every (reward, log-probability, length) of a group by the formulas of docs/methods.md."""
    rewards = np.array([reward for reward, _, _ in group])
    if method == "maxrl":
        return (rewards - mu) / (mu + 1e-6)
    if method == "w_reinforce":
        return np.where(rewards > 0, 0.1, -1.0)
    if method == "passk_training":
        correct, k = round(mu * GROUP), 4
        rho = pass_at_k(GROUP, correct, k)
        if not 0 < rho < 1:
            return np.zeros(GROUP)
        sigma = (rho * (1 - rho)) ** 0.5
        wrong = 1 - rho - comb(GROUP - correct - 1, k - 1) / comb(GROUP - 1, k - 1)
        return np.where(rewards > 0, 1 - rho, wrong) / sigma
    log_probs = np.array([log_prob for _, log_prob, _ in group])
    if method == "unlikeliness" and 0 < mu < 1:
        per_token = log_probs / np.array([length for _, _, length in group])
        # equal responses share the mean of their ranks
        rank = [(per_token < x - 1e-4).sum() + ((abs(per_token - x) <= 1e-4).sum() - 1) / 2 for x in per_token]
        rewards = rewards * (1 - 0.25 * np.array(rank) / GROUP)
    advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    if method == "ds_grpo":
        advantages = advantages + np.where(rewards > 0, -0.1, 0.1) * log_probs
    return advantages


@pytest.mark.full
@pytest.mark.parametrize("method", ["unlikeliness", "ds_grpo", "maxrl", "w_reinforce", "passk_training"])
def test_sibling_methods_with_the_focal_weight(mazes, tmp_path, method):
    run = tmp_path / method
    extra = {"ds_grpo": ["algorithm.ds_gp=0.1", "algorithm.ds_gn=0.1"]}
    logged, _ = run_verl(
        mazes,
        run,
        f"+focal={method}",
        "algorithm.focal_gamma=1.0",
        "trainer.total_training_steps=2",
        *extra.get(method, []),
    )
    assert set(logged) == {1, 2}
    needs_log_probs = method in ("unlikeliness", "ds_grpo")
    for step, metrics in logged.items():
        rates = success_rates(run, step)
        check_focal_metrics(metrics, rates, gamma=1.0)
        if needs_log_probs and step > 1:  # another policy drew these
            continue
        rows = dumped(run, step)
        log_probs = response_log_probs(mazes[0], rows) if needs_log_probs else [(0.0, 1)] * len(rows)
        groups = defaultdict(list)
        for row, known in zip(rows, log_probs, strict=True):
            groups[row["uid"].rsplit("_", 2)[0]].append((row["score"], *known))
        advantages = np.concatenate(
            [(1 - rates[uid]) * sibling_advantages(method, rates[uid], groups[uid]) for uid in groups]
        )
        assert len(np.unique(advantages.round(6))) > 2
        assert metrics["critic/advantages/max"] == pytest.approx(advantages.max(), rel=1e-3)
        assert metrics["critic/advantages/min"] == pytest.approx(advantages.min(), rel=1e-3)
