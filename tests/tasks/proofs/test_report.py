"""The report, from samples that are known: what is written equals what can be counted by hand."""

import csv
import json
import shutil

import pytest

from verl_fgrpo.evaluation.samples import Sample, SampleStore
from verl_fgrpo.tasks.common.experiment import START, Checkpoint, count_correct, grade_samples
from verl_fgrpo.tasks.common.model import ModelSize, build_model
from verl_fgrpo.tasks.common.start_model import SftSettings
from verl_fgrpo.tasks.proofs.prepare import ProofSettings, prepare
from verl_fgrpo.tasks.proofs.report import SeedResult, write_report
from verl_fgrpo.tasks.proofs.task import PROOFS, TOKENIZER, as_problem, read_heldout

SIZE = ModelSize(layers=1, hidden=32, mlp=64, heads=2, kv_heads=1)
N = 8


@pytest.fixture(scope="module")
def result(tmp_path_factory, kernel):
    """Start model: half of the samples right, all with the shortest proof. grpo: all right, the shortest proof.
    f_grpo: all right, two proofs in turn."""
    root = tmp_path_factory.mktemp("report")
    data = root / "data"
    sft = SftSettings(steps=2, batch_size=8, model=SIZE)
    prepare(data, ProofSettings(supervised=10, train=4, heldout=6, sft=sft), progress=False, say=lambda text: None)
    theorems = read_heldout(data)
    problems = [as_problem(theorem) for theorem in theorems]
    checkpoints, counts = {}, {}
    for number, name in enumerate((START, "grpo", "f_grpo")):
        model = root / f"model{number}"
        shutil.copytree(data / "start_model", model)
        build_model(SIZE, TOKENIZER, seed=number).save_pretrained(model)
        checkpoints[name] = Checkpoint(name, number, model)
        folder = root / "samples" / checkpoints[name].name
        with SampleStore(folder / "samples", {"run": name}).writer() as writer:
            for problem, theorem in zip(problems, theorems, strict=True):
                for index in range(N):
                    text = theorem.proofs[index % 2 if name == "f_grpo" else 0]
                    if name == START and index % 2:
                        text = "h1"
                    writer.append(Sample("proofs", problem.problem_id, index, index, text, 9, "stop"))
        grade_samples(PROOFS, folder, problems)
        counts[name] = count_correct(folder, problems)
    return root, SeedResult(theorems, checkpoints, root / "samples", counts)


def rows_of(path):
    with path.open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_the_report_counts_what_was_sampled(result):
    root, seed = result
    text = write_report({1: seed}, root / "out", 4, {"seeds": "1"})
    report = root / "out" / "report"
    assert (report / "report.md").read_text() == text
    # 4 of 8 samples right: pass@1 = 0.5; every theorem has a right one among any 8
    assert "| start model | 50.0 [50.0, 50.0]" in text and "| grpo | 100.0 [100.0, 100.0]" in text
    distinct = rows_of(report / "distinct.csv")
    assert [float(distinct[name]["distinct_value"]) for name in (START, "grpo", "f_grpo")] == pytest.approx([1, 1, 2])
    assert float(distinct["f_grpo"]["difference_value"]) == pytest.approx(1)
    share = sum(2 / len(theorem.proofs) for theorem in seed.theorems) / len(seed.theorems)
    assert float(distinct["f_grpo"]["enumerated_value"]) == pytest.approx(share)
    uplift = json.loads((report / "uplift.json").read_text())["rows"]
    assert sum(row["samples"] for row in uplift if row["run"] == "grpo") == 6 * 4  # the start model's right samples
    examples = json.loads((report / "examples.json").read_text())["rows"]
    assert len({row["theorem"] for row in examples}) == len(examples) == 6
    assert all(0 < row["p_grpo"] < 1 and 0 < row["p_start model"] < 1 for row in examples)
    assert text.count("\nexample : ") == 6 and " .1" not in text and "The runs wrote no rollouts." in text
    for name in ("methods", "uplift"):
        assert (report / f"{name}.png").stat().st_size > 10_000


def test_grading_again_finds_nothing_to_do(result, monkeypatch):
    root, seed = result
    monkeypatch.setattr("verl_fgrpo.tasks.proofs.rewards.check_proofs", lambda items, seconds: 1 / 0)
    problems = [as_problem(theorem) for theorem in seed.theorems]
    grade_samples(PROOFS, root / "samples" / seed.checkpoints["grpo"].name, problems)


def test_a_run_that_proves_nothing_still_has_a_report(result, tmp_path):
    """A start model without a right sample: no ranks, no examples, and NaN nowhere."""
    root, seed = result
    problems = [as_problem(theorem) for theorem in seed.theorems]
    samples = tmp_path / "samples"
    shutil.copytree(root / "samples", samples)
    folder = samples / seed.checkpoints[START].name
    shutil.rmtree(folder)
    with SampleStore(folder / "samples", {"run": START}).writer() as writer:
        for problem in problems:
            for index in range(N):
                writer.append(Sample("proofs", problem.problem_id, index, index, "h1", 2, "stop"))
    grade_samples(PROOFS, folder, problems)
    counts = dict(seed.counts) | {START: count_correct(folder, problems)}
    text = write_report({1: SeedResult(seed.theorems, seed.checkpoints, samples, counts)}, tmp_path / "out", 4, {})
    assert "The start model proved nothing." in text and "nan" not in text.lower().replace("finance", "")
