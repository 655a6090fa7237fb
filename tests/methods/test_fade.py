"""FADE: golden values by hand, parity with verl's GRPO and with the focal weight, state over steps, clear errors."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn

from verl_fgrpo.methods.context import EstimatorContext, Run, using_context
from verl_fgrpo.methods.fade import FILE, FadeState, fade_advantages, load_state, save_state, schedule, start_state
from verl_fgrpo.methods.settings import MethodConfig


def algorithm(**values):
    return OmegaConf.create({"norm_adv_by_std_in_grpo": False, "use_kl_in_reward": False} | values)


def batch(counts=((8, 1), (8, 6), (8, 8), (4, 2)), seed=0):
    """Groups of (size, number correct), responses of one to five tokens, rows in any order."""
    rng = np.random.default_rng(seed)
    rows = [(f"uid-{g}", float(i < x)) for g, (n, x) in enumerate(counts) for i in range(n)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    lengths = rng.integers(1, 6, len(rows))
    rewards = torch.zeros(len(rows), 5)
    rewards[torch.arange(len(rows)), torch.from_numpy(lengths) - 1] = torch.tensor([reward for _, reward in rows])
    return {
        "token_level_rewards": rewards,
        "response_mask": (torch.arange(5) < torch.from_numpy(lengths).unsqueeze(-1)).long(),
        "index": np.array([uid for uid, _ in rows], dtype=object),
    }


def call(data, config, name="fade", entropy=1.0, step=1, folder=None, run=None, metrics=None):
    with using_context(EstimatorContext(entropy=entropy, step=step, folder=folder, run=run, metrics=metrics)):
        return get_adv_estimator_fn(name)(**data, config=config)[0]


# golden values


def test_the_schedule_golden():
    settings = MethodConfig(fade_entropy_target=1.0)
    # p = 0.98 * 0.5 + 0.02 * 1 = 0.51, alpha = 1.5 * 0.49 / 0.51
    # H = 0.98 * 0.8 + 0.02 * 0.3 = 0.79, delta = 1 + 0.79 - 1
    state, alpha, delta = schedule(FadeState(0, 0.5, 0.8, 1.0), 1, 1.0, 0.3, settings)
    assert (state.step, state.entropy_target) == (1, 1.0)
    assert (state.solve_rate, state.entropy) == (pytest.approx(0.51), pytest.approx(0.79))
    assert (alpha, delta) == (pytest.approx(0.735 / 0.51), pytest.approx(0.79))


@pytest.mark.parametrize(
    "p, alpha", [(0.0, 3.0), (0.2, 3.0), (1 / 3, 3.0), (0.4, 2.25), (0.5, 1.5), (0.6, 1.0), (0.9, 1.0), (1.0, 1.0)]
)
def test_alpha_is_clipped(p, alpha):
    # 1.5 (1 - p) / p is 3 at p = 1/3, 2.25 at 0.4 and 1 at 0.6; fade_ema = 1 takes the batch alone
    assert schedule(FadeState(0, 0.5, 1.0, 1.0), 1, p, 1.0, MethodConfig(fade_ema=1.0))[1] == pytest.approx(alpha)


@pytest.mark.parametrize("entropy, delta", [(2.0, 1.0), (1.0, 1.0), (0.8, 0.8), (0.3, 0.3), (0.0, 0.3)])
def test_delta_is_clipped(entropy, delta):
    assert schedule(FadeState(0, 0.5, 9.0, 1.0), 1, 0.5, entropy, MethodConfig(fade_ema=1.0))[2] == pytest.approx(delta)


def test_advantages_golden():
    # 3 of 4 correct, mu = 3/4, alpha = 3: (1/4)^2 = 1/16. Correct 1/16 * 1/4, wrong 1/16 * -3/4 / 0.5
    centred, mu = torch.tensor([0.25, 0.25, 0.25, -0.75]), torch.full((4,), 0.75, dtype=torch.float64)
    assert fade_advantages(centred, mu, alpha=3.0, delta=0.5).tolist() == [1 / 64, 1 / 64, 1 / 64, -3 / 32]


def test_the_estimator_golden():
    # p = 0.98 * 0.5 + 0.02 * 0.25 = 0.495, alpha = 1.5 * 0.505 / 0.495; H* = half of the start entropy 1.2, delta 1
    metrics = {}
    data = {
        "token_level_rewards": torch.tensor([[1.0], [0.0], [0.0], [0.0]]),
        "response_mask": torch.ones(4, 1),
        "index": np.array(["a"] * 4, dtype=object),
    }
    found = call(data, algorithm(), entropy=1.2, metrics=metrics)[:, 0]
    weight = 0.75 ** (0.7575 / 0.495 - 1)
    np.testing.assert_allclose(found, [0.75 * weight, *[-0.25 * weight] * 3], rtol=1e-6)
    assert metrics["fade/alpha"] == pytest.approx(0.7575 / 0.495)
    assert (metrics["fade/delta"], metrics["fade/solve_rate"], metrics["fade/entropy"]) == pytest.approx(
        (1, 0.495, 1.2)
    )
    # at H* = 2 the entropy is 0.8 too low: delta = 1 + 1.2 - 2 = 0.2 -> 0.3
    later = call(data, algorithm(fade_entropy_target=2.0), entropy=1.2)[:, 0]
    np.testing.assert_allclose(later, [0.75 * weight, *[-0.25 * weight / 0.3] * 3], rtol=1e-6)


# parity


def test_alpha_one_and_delta_one_is_grpo_without_the_std_bit_for_bit():
    config = algorithm(fade_alpha_max=1.0, fade_delta_min=1.0, fade_entropy_target=5.0)
    for seed in range(5):
        data = batch(seed=seed)
        plain, _ = compute_grpo_outcome_advantage(**data, norm_adv_by_std_in_grpo=False)
        assert torch.equal(call(data, config), plain)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
def test_power_alpha_is_f_grpo_without_the_std_at_gamma_alpha_minus_one(alpha):
    for seed in range(5):
        data = batch(seed=seed)
        # a batch solved so rarely that alpha is at its highest, and an entropy above the target: delta 1
        config = algorithm(fade_alpha_max=alpha, fade_ema=1e-9, fade_entropy_target=0.0)
        run = Run(notes={"fade": FadeState(0, 1e-6, 1.0, 0.0)})
        f_grpo = call(data, algorithm(focal_gamma=alpha - 1.0), "f_grpo")
        torch.testing.assert_close(call(data, config, run=run), f_grpo, rtol=1e-6, atol=0)


@given(
    st.lists(st.tuples(st.integers(2, 9), st.integers(0, 9)), min_size=1, max_size=5),
    st.floats(1, 4),
    st.floats(0.1, 1),
)
def test_signs_zeros_and_balance(groups, alpha, delta):
    """Positive mass is delta times the negative one in every group; all-right and all-wrong groups have none."""
    for size, correct in groups:
        rewards = torch.tensor([float(i < min(correct, size)) for i in range(size)], dtype=torch.float64)
        mu = rewards.mean()
        found = fade_advantages(rewards - mu, mu.expand(size), alpha, delta)
        assert bool((found[rewards == 1] >= 0).all()) and bool((found[rewards == 0] <= 0).all())
        assert found.clamp(min=0).sum().item() == pytest.approx(-delta * found.clamp(max=0).sum().item(), abs=1e-12)
        if mu in (0.0, 1.0):
            assert not found.any()


# state over steps


def test_the_state_goes_on_in_one_process_and_is_restored_in_the_next(tmp_path):
    config = algorithm()
    rates, entropies, one_run, resumed = [0.2, 0.7, 0.4], [1.0, 0.5, 0.1], [], []
    run = Run()
    for step, (x, entropy) in enumerate(zip(rates, entropies, strict=True), start=1):
        metrics = {}
        call(
            batch([(10, round(10 * x))]), config, entropy=entropy, step=step, folder=tmp_path, run=run, metrics=metrics
        )
        one_run.append(metrics["fade/alpha"])
    # by hand: p = 0.494, 0.49812, 0.4961576
    p = [0.98 * 0.5 + 0.02 * 0.2]
    p += [0.98 * p[0] + 0.02 * 0.7]
    p += [0.98 * p[1] + 0.02 * 0.4]
    assert one_run == pytest.approx([1.5 * (1 - x) / x for x in p])
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {line["entropy_target"] for line in lines} == {0.5}
    # killed in step 3, resumed from the checkpoint of step 2: the same third step
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 4, "sol')
    call(batch([(10, 4)]), config, entropy=0.1, step=3, folder=tmp_path, run=Run(), metrics=(metrics := {}))
    resumed.append(metrics["fade/alpha"])
    assert resumed == one_run[2:]
    assert load_state(tmp_path, 3) == FadeState(**lines[2])


def test_of_two_states_of_a_step_the_newest_counts(tmp_path):
    for rate in (0.1, 0.2):
        save_state(tmp_path, FadeState(7, rate, 1.0, 0.5))
    assert load_state(tmp_path, 7).solve_rate == 0.2


def test_the_first_step_starts_anew_where_an_older_run_left_a_file(tmp_path):
    save_state(tmp_path, FadeState(1, 0.9, 9.0, 9.0))
    metrics = {}
    call(batch(), algorithm(), entropy=1.0, step=1, folder=tmp_path, run=Run(), metrics=metrics)
    assert metrics["fade/entropy"] == 1.0
    assert start_state(1.0, MethodConfig()) == FadeState(0, 0.5, 1.0, 0.5)


def test_several_batches_of_one_step_all_count(tmp_path):
    run = Run()
    for _ in range(2):
        call(batch([(10, 0)]), algorithm(), step=1, folder=tmp_path, run=run)
    assert run.notes["fade"].solve_rate == pytest.approx(0.98**2 * 0.5)


# errors


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"after step 4, but .* has no state of that step"):
        call(batch(), algorithm(), step=5, folder=tmp_path, run=Run())
    with pytest.raises(ValueError, match="needs the policy's entropy"):
        call(batch(), algorithm(), entropy=None)
    with pytest.raises(ValueError, match="norm_adv_by_std_in_grpo=False"):
        call(batch(), algorithm(norm_adv_by_std_in_grpo=True))


@pytest.mark.parametrize(
    "key, value",
    [("alpha_max", 0.5), ("delta_min", 0), ("delta_min", 1.5), ("ema", 0), ("ema", 2), ("entropy_target", -1)],
)
def test_settings_out_of_range(key, value):
    with pytest.raises(ValueError, match=rf"algorithm\.fade_{key} is {value}"):
        MethodConfig(**{f"fade_{key}": value})
