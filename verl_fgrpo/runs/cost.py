"""What a run costs: steps, GPU hours and disk, computed from stated assumptions and not measured."""

from dataclasses import dataclass

from omegaconf import DictConfig

PAPER_PROBLEMS = 39_202  # arXiv 2602.06717, L.1
RESPONSE_SHARE = 0.25  # mean response length as a share of the limit
PROMPT_TOKENS = 200  # mean
GENERATION_RATE = 20_000.0  # tokens per second and GPU for a model of 1 billion parameters; inverse in the size
TRAINING_FLOPS = 0.35 * 989e12  # 35 % of an H100's dense bf16 peak
VALIDATION_PROBLEMS = 1_546  # the six math benchmarks
EVALUATION_SAMPLES = 1_024  # arXiv 2602.06717, L.4


@dataclass(frozen=True)
class Estimate:
    """What a run costs."""

    steps: int  # optimisation steps of `rollouts` rollouts each
    rollouts: int
    states: int  # full states on disk at the same time at most, the one being written included
    # size of one: fp32 parameters and both Adam moments (12 bytes a parameter), and 4 for weights in Hugging
    # Face's format, which verl writes in fp32 too
    state_gb: float
    weights: int  # checkpoints kept as weights alone, of `weights_gb` each
    weights_gb: float
    generation_hours: float  # GPU hours, as the next three
    training_hours: float
    validation_hours: float
    evaluation_hours: float  # of the final evaluation of one checkpoint
    assumptions: str  # one line for people

    @property
    def gpu_hours(self) -> float:
        """Of one run and the final evaluation of its best checkpoint."""
        return self.generation_hours + self.training_hours + self.validation_hours + self.evaluation_hours

    @property
    def disk_gb(self) -> float:
        """At its peak."""
        return self.states * self.state_gb + self.weights * self.weights_gb


def estimate(
    config: DictConfig,
    billions: float,
    problems: int = PAPER_PROBLEMS,
    validation: int = VALIDATION_PROBLEMS,
    samples: int = EVALUATION_SAMPLES,
) -> Estimate:
    """GPU hours and disk of a run.

    Generation: tokens / rate. Training: 8 FLOPs per parameter and token (forward, backward, recomputed forward) and 2
    for the old log-probs, 2 more for a reference model; attention is left out.

    Args:
        billions: parameters of the model.
        problems, validation: rows of the two files; the final evaluation samples those of the second.
        samples: per problem of the final evaluation.
    """
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    per_epoch = max(problems // config.data.train_batch_size, 1)
    steps = int(trainer.total_training_steps or per_epoch * trainer.total_epochs)
    rollouts = int(config.data.train_batch_size * rollout.n)
    response = RESPONSE_SHARE * config.data.max_response_length
    rate = GENERATION_RATE / billions
    flops = 10 + 2 * bool(config.actor_rollout_ref.actor.use_kl_loss)
    validations = bool(trainer.val_before_train) + (steps // trainer.test_freq if trainer.test_freq > 0 else 0)
    states, weights = _checkpoints(config, steps)
    with_weights = "hf_model" in config.actor_rollout_ref.actor.checkpoint.save_contents
    return Estimate(
        steps=steps,
        rollouts=rollouts,
        states=states,
        state_gb=(16 if with_weights else 12) * billions,
        weights=weights,
        weights_gb=4 * billions,
        generation_hours=steps * rollouts * response / rate / 3600,
        training_hours=flops * billions * 1e9 * steps * rollouts * (PROMPT_TOKENS + response) / TRAINING_FLOPS / 3600,
        validation_hours=validations * validation * rollout.val_kwargs.n * response / rate / 3600,
        evaluation_hours=validation * samples * response / rate / 3600,
        assumptions=(
            f"{problems:,} problems, {billions:g} billion parameters, mean response {response:,.0f} tokens "
            f"({RESPONSE_SHARE:.0%} of the limit), {rate:,.0f} tokens generated per second and GPU, training at "
            f"{TRAINING_FLOPS / 1e12:.0f} TFLOP/s and GPU (35% of an H100's bf16 peak), final evaluation of one "
            f"checkpoint with {validation:,} problems x {samples:,} samples"
        ),
    )


def _checkpoints(config: DictConfig, steps: int) -> tuple[int, int]:
    """(full states, weights) on disk at the peak."""
    trainer = config.trainer
    saved = -(-steps // trainer.save_freq) if trainer.save_freq > 0 else 0
    if every := trainer.get("keep_weights_every"):
        return min(saved, 2), steps // every  # the newest, and the one being written
    if keep := trainer.max_actor_ckpt_to_keep:
        return min(saved, max(int(keep), 2)), 0
    return saved, 0


def describe(plan: Estimate, gpus: int) -> str:
    """The estimate as text."""
    weights = f" and {plan.weights} x {plan.weights_gb:,.0f} GB (weights, fp32)" if plan.weights else ""
    return (
        "estimate, from assumptions and not from a measurement:\n"
        f"  {plan.steps:,} steps of {plan.rollouts:,} rollouts\n"
        f"  {plan.gpu_hours:,.0f} GPU hours: generation {plan.generation_hours:,.0f}, training "
        f"{plan.training_hours:,.0f}, validation {plan.validation_hours:,.0f}, final evaluation "
        f"{plan.evaluation_hours:,.0f}; {plan.gpu_hours / gpus:,.0f} h on {gpus} GPU(s)\n"
        f"  {plan.disk_gb:,.0f} GB of disk: {plan.states} x {plan.state_gb:,.0f} GB (parameters, optimiser, weights)"
        f"{weights}\n"
        f"  assumed: {plan.assumptions}"
    )
