"""Evaluation: sample a model many times per problem, grade every sample, and say with statistics what changed.

Nothing in this package imports verl. One module per step:

- `samples`: crash-safe, append-only store of samples (resume, top up, merge);
- `passk`: pass@k and pass^k from counts of correct samples;
- `significance`: paired m-out-of-n subsampling test and bootstrap over problems;
- `report`: tables and figures from counts per problem.
"""
