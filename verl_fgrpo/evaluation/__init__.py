"""Evaluation: sample a model many times per problem, grade every sample, and say with statistics what changed.

Nothing in this package imports verl. In the order of a run (`cli` lists the commands):

- `benchmarks`, `problems`, `prompts`, `readers`: what is asked, and samples made elsewhere;
- `generation`, `backends`, `openai_backend`, `sequential`: draw samples, a fixed number or until the r-th correct one;
- `samples`: crash-safe, append-only stores of samples and verdicts (resume, top up, merge);
- `grading`, `graders`, `choice`, `math_reading`, `thinking`, `workers`, `ray_grading`, `preload`, `fast_grading`:
  verdicts;
- `summary`, `counts`, `metrics`, `passk`: the numbers of one run; `significance`, `compare`: of two; `power`: planned;
- `report`, `html`: tables, figures and pages; `rare_nll`: drift of rare correct solutions.
"""
