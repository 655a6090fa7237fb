"""Why the group size hurts rare correct solutions: closed forms and the categorical simulation of arXiv 2602.06717.

tail_miss      probability that a group updates the policy without showing it a rare correct solution (Lemma 3.1)
mass_balance   one-step change of the correct and of the unsampled correct mass (eq. 17, Prop. 3.2), Lemma H.1
simulation     the 128,000-action policy of section 5.1, batched over focal_gamma and seed
sweep          simulation over many group sizes: resumable, one CSV
rollouts       success rates per prompt, read from verl rollout dumps or graded samples
gradient_mass  what every method's update weighs, by success rate; from the estimators, so it alone needs verl
figures        figures 1a, 2, 3, 4 and 5 of the paper

The formulas need numpy only, the simulation torch. `verl-fgrpo tail-miss` is `tail_miss_command`.
"""
