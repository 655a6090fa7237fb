"""Advantage estimators: f_X = X times the focal weight of the rollout's group, for verl's own X and for other methods.

To add a method: a module of its own with the formula as a pure function; its keys in `settings.MethodConfig`; a row in
`METHODS` below whose function takes `Rollouts`, settings and verl's GRPO and returns one advantage per rollout; a
preset. Registration, sessions, padding, the `f_` form, metrics and the check of its keys come by themselves. A method
that keeps state over steps finds step, entropy, checkpoint folder and `run.notes` in `rollouts.context`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from omegaconf import OmegaConf

from verl_fgrpo.core.focal import focal_weight, group_codes, normalized_weight
from verl_fgrpo.core.groups import group_sum
from verl_fgrpo.methods.context import EstimatorContext, current_context
from verl_fgrpo.methods.ds_grpo import differential_smoothing
from verl_fgrpo.methods.fade import fade_advantages, load_state, save_state, schedule, start_state
from verl_fgrpo.methods.maxrl import maxrl_advantages
from verl_fgrpo.methods.passk_training import passk_advantages
from verl_fgrpo.methods.settings import FocalConfig, MethodConfig
from verl_fgrpo.methods.success import Success, judge
from verl_fgrpo.methods.unlikeliness import unlikeliness_rewards
from verl_fgrpo.methods.w_reinforce import w_reinforce_advantages
from verl_fgrpo.methods.watch import Observed, observe_step

EstimatorFn = Callable[..., tuple[torch.Tensor, torch.Tensor]]
Grpo = Callable[[torch.Tensor], torch.Tensor]
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Rollouts:
    """A batch as a method sees it: one row a rollout; of a session with several outputs the last one."""

    name: str  # of the estimator, for errors
    token_level_rewards: torch.Tensor  # (B, T) float
    response_mask: torch.Tensor  # (B, T), 1 for response tokens
    index: Any  # (B,) group labels as verl gave them
    codes: torch.Tensor  # (B,) int64 group numbers
    scores: torch.Tensor  # (B,) summed reward
    raw_scores: torch.Tensor  # (B,) the same before any KL penalty
    success: Success  # which rollouts are correct, and the success rate of each one's group
    # (B,) bool; False for padding rows, empty responses and rollouts that were rejected as a whole
    has_tokens: torch.Tensor
    settings: FocalConfig  # of the focal weight
    context: EstimatorContext  # what else is known of the step

    def observed(self) -> Observed:
        """What the log of a step needs."""
        return Observed(self.codes, self.raw_scores, self.success, self.has_tokens)

    def response_log_probs(self, per_token: bool) -> torch.Tensor:
        """(B,) float64, log-probability of each response, or its mean per token; 0 for a row without tokens.

        Raises:
            ValueError: nobody knows them, they do not fit the mask, or they are not finite.
        """
        log_probs = self.context.log_probs
        if log_probs is None:
            raise ValueError(
                f"{self.name} needs the log-probabilities of the rollouts, but this trainer hands an estimator none; "
                "train through verl.trainer.ppo.ray_trainer.compute_advantage with old_log_probs in its batch"
            )
        if log_probs.shape != self.response_mask.shape:
            raise ValueError(
                f"{self.name} was handed log-probabilities of shape {tuple(log_probs.shape)} for a response mask of "
                f"shape {tuple(self.response_mask.shape)}; hand over old_log_probs of the same rows and tokens"
            )
        log_probs = torch.where(self.response_mask.bool(), log_probs.to(self.response_mask.device), 0.0)
        total = log_probs.sum(dim=-1, dtype=torch.float64)
        finite = torch.isfinite(total)
        if not bool(finite.all()):
            raise ValueError(
                f"the log-probabilities of rollout {int((~finite).nonzero()[0])} are not all finite, but {self.name} "
                "ranks or adds them; look for NaN or -inf in the actor's old_log_probs"
            )
        return total / self.response_mask.sum(dim=-1).clamp(min=1) if per_token else total


@dataclass(frozen=True)
class HostEstimator:
    """An estimator of verl that compares the rollouts of one prompt, and what its function is given.

    Args:
        name: verl's.
        inputs: "sum": it computes one number per rollout, so it gets summed rewards of shape (B, 1), which saves passes
            over (B, T). "length": so does this one, but it weighs rollouts by their length; it gets a mask of two
            columns that sum to it. "tokens": the real matrices, for one that whitens over tokens.
        integer_index: it turns uids into integers, which costs more than all the rest; ours are integers already.
        drops_padding: it refuses a group of one, which a lone padding row is, so groups without tokens are left out.
    """

    name: str
    inputs: Literal["sum", "length", "tokens"] = "sum"
    integer_index: bool = False
    drops_padding: bool = False

    needs: ClassVar[frozenset[str]] = frozenset()
    compares_rollouts: ClassVar[bool] = True

    @property
    def per_rollout(self) -> bool:
        """Whether `plain` gives one number per rollout."""
        return self.inputs != "tokens"

    def plain(
        self, rollouts: Rollouts, host: EstimatorFn, config: Mapping[str, Any], arguments: Arguments
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns without the weight, (B, 1) per rollout, or (B, T) for inputs "tokens"."""
        arguments = {"config": config, **arguments}
        if "norm_adv_by_std_in_grpo" in inspect.signature(host).parameters:
            arguments.setdefault("norm_adv_by_std_in_grpo", rollouts.settings.norm_adv_by_std_in_grpo)
        index = rollouts.codes.cpu().numpy() if self.integer_index else np.asarray(rollouts.index)
        rewards, mask = rollouts.token_level_rewards, rollouts.response_mask
        if self.inputs == "tokens":
            return host(token_level_rewards=rewards, response_mask=mask, index=index, **arguments)
        rewards = rollouts.scores.unsqueeze(-1)
        if self.inputs == "length":
            length = mask.sum(dim=-1, keepdim=True)
            mask = torch.cat([length.clamp(max=1), (length - 1).clamp(min=0)], dim=-1)
        else:
            mask = rollouts.has_tokens.unsqueeze(-1).to(mask.dtype)
        rows: Any = slice(None)
        if self.drops_padding and not bool(rollouts.has_tokens.all()):
            rows = (group_sum(rollouts.has_tokens, rollouts.codes) > 0).cpu()
        advantages = torch.zeros_like(rewards)
        found, _ = host(token_level_rewards=rewards[rows], response_mask=mask[rows], index=index[rows], **arguments)
        advantages[rows] = found[:, :1].to(rewards.dtype)
        # opo divides by the tokens of a group, and padding rows have none
        advantages = advantages.masked_fill_(advantages.isnan() & ~rollouts.has_tokens.unsqueeze(-1), 0.0)
        return advantages, advantages


@dataclass(frozen=True)
class Method:
    """Another method, with one advantage per rollout."""

    name: str  # as in `algorithm.adv_estimator`
    # (rollouts, settings, verl's GRPO on (B,) rewards) -> (B,) advantages
    advantages: Callable[[Rollouts, MethodConfig, Grpo], torch.Tensor]
    needs: frozenset[str] = frozenset()  # what it must be given beside verl's arguments, of "log_probs", "entropy"
    compares_rollouts: bool = True  # False for one that works with one rollout a prompt

    per_rollout: ClassVar[bool] = True

    def reads(self, key: str) -> bool:
        """Whether a key of `MethodConfig` is this method's: both begin with the same word."""
        return key.partition("_")[0] == self.name.partition("_")[0]

    def plain(
        self, rollouts: Rollouts, host: EstimatorFn, config: Mapping[str, Any], arguments: Arguments
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns without the weight, (B, 1); `host` is verl's GRPO."""

        def grpo(rewards: torch.Tensor) -> torch.Tensor:
            return host(
                token_level_rewards=rewards.unsqueeze(-1),
                response_mask=rollouts.response_mask.new_ones(len(rewards), 1),
                index=rollouts.codes.tolist(),
                norm_adv_by_std_in_grpo=rollouts.settings.norm_adv_by_std_in_grpo,
            )[0].squeeze(-1)

        advantages = self.advantages(rollouts, MethodConfig.from_algorithm(config), grpo)
        advantages = advantages.to(rollouts.scores.dtype).unsqueeze(-1)
        return advantages, advantages


def _unlikeliness(rollouts: Rollouts, settings: MethodConfig, grpo: Grpo) -> torch.Tensor:
    mean_log_probs = rollouts.response_log_probs(per_token=True)
    correct, ranked, beta = rollouts.success.correct, rollouts.has_tokens, settings.unlikeliness_beta
    return grpo(unlikeliness_rewards(rollouts.scores, correct, mean_log_probs, rollouts.codes, beta, ranked))


def _ds_grpo(rollouts: Rollouts, settings: MethodConfig, grpo: Grpo) -> torch.Tensor:
    log_probs = rollouts.response_log_probs(per_token=settings.ds_length_normalized)
    correct, plain = rollouts.success.correct, grpo(rollouts.scores)
    return differential_smoothing(plain, correct, log_probs, settings.ds_gp, settings.ds_gn)


def _maxrl(rollouts: Rollouts, settings: MethodConfig, grpo: Grpo) -> torch.Tensor:
    return maxrl_advantages(rollouts.scores, rollouts.codes)


def _w_reinforce(rollouts: Rollouts, settings: MethodConfig, grpo: Grpo) -> torch.Tensor:
    return w_reinforce_advantages(rollouts.success.correct, settings.w_reinforce_lambda)


def _passk_training(rollouts: Rollouts, settings: MethodConfig, grpo: Grpo) -> torch.Tensor:
    other = rollouts.raw_scores[(rollouts.raw_scores != 0) & (rollouts.raw_scores != 1)]
    if len(other) and rollouts.success.source != "acc":
        raise ValueError(
            f"passk_training got a reward of {other[0].item()}, but its formula counts successes, so rewards must be 0 "
            "or 1; let the reward function return 0/1, or a dict with score and acc"
        )
    return passk_advantages(rollouts.success.correct, rollouts.codes, settings.passk_k)


def _fade(rollouts: Rollouts, settings: MethodConfig, grpo: Grpo) -> torch.Tensor:
    context = rollouts.context
    if rollouts.settings.norm_adv_by_std_in_grpo:
        raise ValueError(
            "algorithm.norm_adv_by_std_in_grpo is True, but fade does not divide by the std; set "
            "algorithm.norm_adv_by_std_in_grpo=False"
        )
    if context.entropy is None or context.step is None:
        raise ValueError(
            "fade needs the policy's entropy and the global step, which only verl's v1 trainers hand over; set "
            "trainer.use_v1=True and algorithm.rollout_correction.bypass_mode=False"
        )
    notes = {} if context.run is None else context.run.notes
    state = notes.get("fade")
    if state is None:
        state = start_state(context.entropy, settings)
        if context.step > 1 and context.folder is not None:
            state = load_state(context.folder, context.step - 1)
    solve_rate = float(rollouts.success.correct[rollouts.has_tokens].double().mean())
    state, alpha, delta = schedule(state, context.step, solve_rate, context.entropy, settings)
    notes["fade"] = state
    if context.folder is not None:
        save_state(context.folder, state)
    if context.metrics is not None:
        logged = {"alpha": alpha, "delta": delta, "solve_rate": state.solve_rate, "entropy": state.entropy}
        context.metrics.update({f"fade/{name}": value for name, value in logged.items()})
    return fade_advantages(grpo(rollouts.scores), rollouts.success.rate, alpha, delta)


#: Left out: gdpo (several reward dimensions, so no one success rate), the optimal-token-baseline pair (needs data that
#: a registered estimator is not given), gae, reinforce_plus_plus and remax (no group).
HOST_ESTIMATORS = (
    HostEstimator("grpo"),
    HostEstimator("grpo_vectorized", integer_index=True),
    HostEstimator("grpo_passk", drops_padding=True),
    HostEstimator("rloo"),
    HostEstimator("rloo_vectorized", integer_index=True),
    HostEstimator("opo", inputs="length"),
    HostEstimator("gpg"),
    HostEstimator("reinforce_plus_plus_baseline", inputs="tokens"),
)
METHODS = (
    Method("unlikeliness", _unlikeliness, needs=frozenset({"log_probs"})),
    Method("ds_grpo", _ds_grpo, needs=frozenset({"log_probs"})),
    Method("maxrl", _maxrl),
    Method("w_reinforce", _w_reinforce, compares_rollouts=False),
    Method("passk_training", _passk_training),
    Method("fade", _fade, needs=frozenset({"entropy"})),
)
BASE_ESTIMATORS = tuple(base.name for base in HOST_ESTIMATORS)


@dataclass(frozen=True)
class Estimator:
    """A method in verl's calling convention, with the focal weight or without.

        A_focal_i = (1 - mu_i) ** gamma * A_i                                               (arXiv 2602.06717, eq. 13)

    Args:
        base: what computes A.
        host: verl's function of that name; verl's GRPO for a `Method`.
        focal: whether the weight is applied: the `f_` form.
    """

    __verl_fgrpo__: ClassVar[bool] = True  # how the registry tells ours from others'

    base: HostEstimator | Method
    host: EstimatorFn
    focal: bool = True

    @property
    def name(self) -> str:
        """As in `algorithm.adv_estimator`."""
        return f"f_{self.base.name}" if self.focal else self.base.name

    def __call__(
        self,
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any = None,
        config: Mapping[str, Any] | None = None,
        batch: Mapping[str, Any] | None = None,
        non_tensor_batch: Mapping[str, Any] | None = None,
        **host_arguments: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages of the base times the focal weight of each rollout's group.

        gamma = 0 is the base's result bit for bit. Masks, padding rows and row order do not change a weight; a rollout
        whose tokens were all rejected counts in its group and gets none. In a group of one a correct rollout gets
        weight 0, a wrong one weight 1. A session of an agent loop counts once, by its final output; all its outputs
        get that advantage.

        Args:
            token_level_rewards: (B, T) float; summed over tokens it tells success, unless better is known (`judge`).
            response_mask: (B, T), 1 for response tokens.
            index: (B,) group label (uid) of every rollout.
            config: verl's `algorithm` config.
            batch, non_tensor_batch: those of verl's DataProto, where the host hands them on (verl #7473).
            **host_arguments: handed on to verl's function, as far as it takes them.

        Returns:
            advantages and returns, (B, T) each, the same tensor where the host returns the same.

        Raises:
            ValueError: no config or uid, invalid settings, KL in the reward and no raw reward known, non-finite
                rewards, only groups of one, groups larger than rollout.n, or a threshold that tells nothing.
        """
        context = (current_context() or EstimatorContext()).completed(batch, non_tensor_batch)
        accepted = inspect.signature(self.host).parameters
        host_arguments = {name: value for name, value in host_arguments.items() if name in accepted}
        with torch.no_grad():
            if context.sessions is None or context.final is None or bool(context.final.all()):
                return self._weighted(token_level_rewards, response_mask, index, config, context, host_arguments)
            rows = context.final.nonzero().squeeze(1)
            advantages, returns = self._weighted(
                token_level_rewards[rows],
                response_mask[rows],
                None if index is None else np.asarray(index)[rows.numpy()],
                config,
                context.select(rows),
                {
                    key: value[rows] if isinstance(value, torch.Tensor) else value
                    for key, value in host_arguments.items()
                },
            )
            number = {context.sessions[row]: position for position, row in enumerate(rows.tolist())}
            position = torch.tensor([number[session] for session in context.sessions], device=response_mask.device)
            first = (response_mask[rows] > 0).to(torch.uint8).argmax(dim=1, keepdim=True)
            # an advantage is constant over a response: it is read at the first token of the final output
            scattered = [values.gather(1, first)[position] * response_mask for values in (advantages, returns)]
            return scattered[0], scattered[0] if returns is advantages else scattered[1]

    def _weighted(
        self,
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any,
        config: Mapping[str, Any] | None,
        context: EstimatorContext,
        arguments: Arguments,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for one row per rollout."""
        settings = FocalConfig.from_algorithm(config)
        assert config is not None
        rollouts = self._rollouts(token_level_rewards, response_mask, index, settings, context)
        check_group_size(rollouts, config)
        advantages, returns = self.base.plain(rollouts, self.host, config, arguments)
        weight = None
        if self.focal:
            weight = focal_weight(rollouts.success.rate, settings.gamma)
            if settings.normalize:
                weight = normalized_weight(weight, rollouts.success.rate, rollouts.codes)
            weight = weight.to(rollouts.scores.dtype).unsqueeze(-1)
        if context.metrics is not None:
            size = advantages.abs()
            magnitude = size[:, 0] * response_mask.sum(dim=-1) if self.base.per_rollout else size.sum(dim=-1)
            observe_step(self.name, rollouts.observed(), settings, context, weight, magnitude)
        if self.base.per_rollout:
            weighted = (advantages if weight is None else advantages * weight) * response_mask
            return weighted, weighted
        if weight is not None:
            returns = advantages.mul_(weight) if returns is advantages else returns.mul_(weight)
            advantages = returns if returns is advantages else advantages.mul_(weight)
        return advantages, returns

    def _rollouts(
        self,
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any,
        settings: FocalConfig,
        context: EstimatorContext,
    ) -> Rollouts:
        if index is None:
            raise ValueError(
                f"{self.name} got no index (uid), but it needs the group of every rollout; "
                "run it through verl's trainer, which sets non_tensor_batch['uid'], or pass index="
            )
        scores = token_level_rewards.sum(dim=-1)
        codes, labels = group_codes(index)
        has_tokens = rows_with_tokens(response_mask)
        check_batch(self.name, scores, codes, labels, has_tokens, self.base.compares_rollouts)
        raw_scores = context.raw_scores
        if raw_scores is None:
            if settings.use_kl_in_reward:
                raise ValueError(
                    "algorithm.use_kl_in_reward is True, but then the reward no longer tells whether a rollout "
                    "succeeded, and this trainer does not hand on the reward before KL; set "
                    "algorithm.use_kl_in_reward=False and put the KL term into the loss with "
                    "actor_rollout_ref.actor.use_kl_loss=True, or train through "
                    "verl.trainer.ppo.ray_trainer.compute_advantage"
                )
            raw_scores = scores
        codes, raw_scores = codes.to(scores.device), raw_scores.to(scores.device)
        return Rollouts(
            name=self.name,
            token_level_rewards=token_level_rewards,
            response_mask=response_mask,
            index=index,
            codes=codes,
            scores=scores,
            raw_scores=raw_scores,
            success=judge(raw_scores, codes, settings, context.reported, context.data_sources),
            has_tokens=has_tokens,
            settings=settings,
            context=context,
        )


def estimators(verls: Callable[[str], EstimatorFn]) -> dict[str, Estimator]:
    """Every estimator of ours by name; `verls` gives verl's own function by its name."""
    table = [Estimator(base, verls(base.name)) for base in HOST_ESTIMATORS]
    table += [Estimator(method, verls("grpo"), focal) for method in METHODS for focal in (False, True)]
    return {estimator.name: estimator for estimator in table}


def rows_with_tokens(response_mask: torch.Tensor) -> torch.Tensor:
    """(B,) bool: rows with a response token; nearly all are told by their first column, without a pass over (B, T)."""
    has = response_mask[:, 0] > 0
    rest = (~has).nonzero().squeeze(1)
    if len(rest):
        has[rest] = (response_mask[rest] > 0).any(dim=-1)
    return has


def check_group_size(rollouts: Rollouts, config: Mapping[str, Any]) -> None:
    """Refuse groups larger than `rollout.n` where nobody knows sessions: every output would count as a rollout.

    Raises:
        ValueError: such a group, unless the data set the number of rollouts (`__rollout_n__`).
    """
    context = rollouts.context
    root = config._get_root() if hasattr(config, "_get_root") else None
    limit = None if root is None else OmegaConf.select(root, "actor_rollout_ref.rollout.n")
    if limit is None or context.sessions is not None or context.varying_groups or not bool(rollouts.has_tokens.any()):
        return
    largest = int(torch.bincount(rollouts.codes[rollouts.has_tokens]).max())
    if largest > int(limit):
        raise ValueError(
            f"a group has {largest} rows, but actor_rollout_ref.rollout.n is {limit}: the outputs of one session would "
            "count as rollouts of their own; train with trainer.use_v1=True, where sessions are known, or let the "
            "data set __rollout_n__"
        )


def check_batch(
    name: str,
    scores: torch.Tensor,
    codes: torch.Tensor,
    labels: list[Any],
    has_tokens: torch.Tensor,
    compares_rollouts: bool = True,
) -> None:
    """Refuse a batch whose advantages or success rates would be meaningless.

    Raises:
        ValueError: a wrong number of labels, a non-finite reward, or only groups of one where `compares_rollouts`.
    """
    if len(codes) != len(scores):
        raise ValueError(
            f"{name} got {len(scores)} rollouts but {len(codes)} group labels; pass one uid per rollout in index"
        )
    finite = torch.isfinite(scores)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(
            f"the reward of rollout {row} of uid {labels[int(codes[row])]!r} sums to {scores[row].item()}, but "
            "rewards must be finite numbers; make the reward function return 0.0 instead of NaN or infinity"
        )
    real = codes[has_tokens.to(codes.device)]  # padding rows are no group
    if compares_rollouts and len(real) and int(torch.bincount(real).max()) < 2:
        raise ValueError(
            f"every one of the {len(real)} groups in this batch has one rollout, but {name} compares the "
            "rollouts of a prompt; set actor_rollout_ref.rollout.n to 2 or more (the paper uses 8)"
        )
