"""Every symbol of verl that the plugin calls, with the parameters it relies on. The doctor and a test check them."""

import importlib
import inspect

_ESTIMATOR = ("token_level_rewards", "response_mask", "index", "config")
_LOSS = (
    "old_log_prob",
    "log_prob",
    "advantages",
    "response_mask",
    "loss_agg_mode",
    "config",
    "rollout_is_weights",
)

#: "module:attribute" -> parameters (of a callable) or fields (of a dataclass) that must be there
HOST_SYMBOLS: dict[str, tuple[str, ...]] = {
    "verl.trainer.ppo.core_algos:ADV_ESTIMATOR_REGISTRY": (),
    "verl.trainer.ppo.core_algos:POLICY_LOSS_REGISTRY": (),
    "verl.trainer.ppo.core_algos:get_adv_estimator_fn": ("name_or_enum",),
    "verl.trainer.ppo.core_algos:get_policy_loss_fn": ("name",),
    "verl.trainer.ppo.core_algos:compute_grpo_outcome_advantage": (*_ESTIMATOR, "norm_adv_by_std_in_grpo"),
    "verl.trainer.ppo.core_algos:compute_grpo_vectorized_outcome_advantage": (*_ESTIMATOR, "norm_adv_by_std_in_grpo"),
    "verl.trainer.ppo.core_algos:compute_grpo_passk_outcome_advantage": (*_ESTIMATOR, "norm_adv_by_std_in_grpo"),
    "verl.trainer.ppo.core_algos:compute_rloo_outcome_advantage": _ESTIMATOR,
    "verl.trainer.ppo.core_algos:compute_rloo_vectorized_outcome_advantage": _ESTIMATOR,
    "verl.trainer.ppo.core_algos:compute_opo_outcome_advantage": _ESTIMATOR,
    "verl.trainer.ppo.core_algos:compute_gpg_outcome_advantage": _ESTIMATOR,
    "verl.trainer.ppo.core_algos:compute_reinforce_plus_plus_baseline_outcome_advantage": _ESTIMATOR,
    "verl.trainer.ppo.core_algos:compute_policy_loss_vanilla": _LOSS,
    "verl.trainer.ppo.core_algos:compute_policy_loss_cispo": _LOSS,
    "verl.trainer.ppo.core_algos:compute_policy_loss_gspo": _LOSS,
    "verl.trainer.ppo.core_algos:compute_policy_loss_sapo": _LOSS,
    "verl.trainer.ppo.core_algos:compute_policy_loss_geo_mean": _LOSS,
    "verl.trainer.ppo.core_algos:compute_policy_loss_gpg": _LOSS,
    "verl.trainer.ppo.core_algos:compute_policy_loss_clip_cov": _LOSS,
    "verl.trainer.ppo.core_algos:compute_policy_loss_kl_cov": _LOSS,
    "verl.workers.config:PolicyLossConfig": ("loss_mode", "clip_cov_ratio", "kl_cov_ratio"),
    "verl.workers.config:ActorConfig": ("rollout_n", "policy_loss", "clip_ratio_low", "clip_ratio_high"),
}


def broken_symbols(symbols: dict[str, tuple[str, ...]] = HOST_SYMBOLS) -> list[str]:
    """Say what of `symbols` the installed verl lacks.

    Args:
        symbols: "module:attribute" to the parameter names that must be there.

    Returns:
        One sentence per missing symbol or parameter; empty when all is there.
    """
    broken = []
    for symbol, parameters in symbols.items():
        module, attribute = symbol.split(":")
        try:
            host = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            broken.append(f"{symbol} is missing: {error}")
            continue
        if not parameters:
            continue
        absent = [name for name in parameters if name not in inspect.signature(host).parameters]
        if absent:
            broken.append(f"{symbol} no longer takes {', '.join(absent)}")
    return broken
