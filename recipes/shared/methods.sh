# The methods that can be compared, by name. Sourced by recipes that set FOCAL_GAMMA and PASSK_K.

# method_arm NAME sets PRESET, GAMMA and OVERRIDES. NAME_epochsE is a method with E PPO epochs a step. The plain method is the f_ estimator at gamma 0, bit for bit.
method_arm() {
    PRESET=grpo GAMMA=0 OVERRIDES=()
    local method=$1 epochs=
    if [[ $method =~ ^(.*)_epochs([1-9])$ ]]; then method=${BASH_REMATCH[1]} epochs=${BASH_REMATCH[2]}; fi
    if [[ $method == f_* ]]; then method=${method#f_} GAMMA=$FOCAL_GAMMA; fi
    case $method in
        grpo) ;;
        nsr) PRESET=w_reinforce OVERRIDES=(algorithm.w_reinforce_lambda=0) ;;
        passk_training) PRESET=passk_training OVERRIDES=(algorithm.passk_k="$PASSK_K") ;;
        # ours: the preset's KL loss off, no other method has one and it holds on to diversity by itself; 2 PPO epochs stay
        unlikeliness) PRESET=unlikeliness OVERRIDES=(actor_rollout_ref.actor.use_kl_loss=false) ;;
        # ours: log-probabilities of these short answers are around -1, so 0.1 moves advantages (around 1) by a tenth
        ds_grpo) PRESET=ds_grpo OVERRIDES=(algorithm.ds_gp=0.1 algorithm.ds_gn=0.1) ;;
        maxrl | w_reinforce) PRESET=$method ;;
        # platform=cpu has bypass_mode=true, which leaves out the entropy
        fade) PRESET=fade OVERRIDES=(algorithm.rollout_correction.bypass_mode=false) ;;
        gapo)
            [ "$GAMMA" = 0 ] || die "METHODS has '$1', but gapo reads unweighted advantages; use gapo"
            PRESET=gapo ;;
        *) die "METHODS has '$1', but it knows grpo, unlikeliness, ds_grpo, maxrl, w_reinforce, nsr, passk_training, fade, and f_ with each, or gapo; each also with _epochs1 or _epochs2" ;;
    esac
    [ -z "$epochs" ] || OVERRIDES+=(actor_rollout_ref.actor.ppo_epochs="$epochs")
}
