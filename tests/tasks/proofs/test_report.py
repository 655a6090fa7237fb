"""The report, from samples that are known: what is written equals what can be counted by hand."""

import csv
import json
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest
from faulty_os import FAULTS, FaultyOs

from verl_fgrpo.core import files
from verl_fgrpo.evaluation.samples import Sample, SampleStore
from verl_fgrpo.tasks.common.experiment import START, Checkpoint, count_correct, grade_samples
from verl_fgrpo.tasks.common.model import ModelSize, build_model
from verl_fgrpo.tasks.common.start_model import SftSettings
from verl_fgrpo.tasks.proofs.prepare import ProofSettings, prepare
from verl_fgrpo.tasks.proofs.record import load_runs, record_seed
from verl_fgrpo.tasks.proofs.report import write_report
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
    problems = [as_problem(theorem.statement) for theorem in theorems]
    checkpoints = {}
    for number, name in enumerate((START, "grpo", "f_grpo")):
        run = root / "seed1" / name
        model = run / "global_step_9" / "actor" / "huggingface"
        shutil.copytree(data / "start_model", model)
        (run / "settings.json").write_text(json.dumps({"preset": name, "group_size": "8"}))
        (run / "rollouts").mkdir()
        build_model(SIZE, TOKENIZER, seed=number).save_pretrained(model)
        checkpoints[name] = Checkpoint(name, 9 if number else 0, model)
        folder = root / "samples" / checkpoints[name].name
        with SampleStore(folder / "samples", {"run": name}).writer() as writer:
            for problem, theorem in zip(problems, theorems, strict=True):
                for index in range(N):
                    text = theorem.proofs[index % 2 if name == "f_grpo" else 0]
                    if name == START and index % 2:
                        text = "h1"
                    writer.append(Sample("proofs", problem.problem_id, index, index, text, 9, "stop"))
        grade_samples(PROOFS, folder, problems)
    return root, theorems, checkpoints


def rows_of(path):
    with path.open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_the_report_counts_what_was_sampled(result):
    root, theorems, checkpoints = result
    report = root / "results"
    record_seed(report, 1, theorems, checkpoints, root / "samples", N)
    before = {path: path.read_bytes() for path in (report / "runs").iterdir()}
    record_seed(report, 1, theorems, checkpoints, root / "samples", N)  # recorded already: nothing changes
    assert before == {path: path.read_bytes() for path in (report / "runs").iterdir()} and len(before) == 3
    text = write_report(load_runs(report), report, 4)
    assert (report / "report.md").read_text() == text
    # 4 of 8 samples right: pass@1 = 0.5; every theorem has a right one among any 8
    assert "| start model | 50.0 [50.0, 50.0]" in text and "| grpo | 100.0 [100.0, 100.0]" in text
    distinct = rows_of(report / "distinct.csv")
    assert [float(distinct[name]["distinct_value"]) for name in (START, "grpo", "f_grpo")] == pytest.approx([1, 1, 2])
    assert float(distinct["f_grpo"]["difference_value"]) == pytest.approx(1)
    share = sum(2 / len(theorem.proofs) for theorem in theorems) / len(theorems)
    assert float(distinct["f_grpo"]["enumerated_value"]) == pytest.approx(share, abs=1e-4)
    uplift = json.loads((report / "uplift.json").read_text())["rows"]
    assert sum(row["samples"] for row in uplift if row["run"] == "grpo") == 6 * 4  # the start model's right samples
    examples = json.loads((report / "examples.json").read_text())["rows"]
    assert len({row["theorem"] for row in examples}) == len(examples) == 6
    assert all(0 < row["p_grpo"] < 1 and 0 < row["p_start model"] < 1 for row in examples)
    assert text.count("\nexample : ") == 6 and " .1" not in text and "The runs wrote no rollouts." in text
    for name in ("methods", "uplift"):
        assert (report / f"{name}.png").stat().st_size > 10_000


def test_a_record_is_there_once_or_not_at_all_through_a_fault_at_every_call(result, tmp_path, monkeypatch):
    root, theorems, checkpoints = result
    monkeypatch.setattr("verl_fgrpo.tasks.proofs.record.load_model", lambda folder: None)
    monkeypatch.setattr("verl_fgrpo.tasks.proofs.record.score_answers", lambda model, words, pairs: [-1.0] * len(pairs))
    monkeypatch.setattr("verl_fgrpo.tasks.common.records.provenance", dict)

    def record(folder, faulty):
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt, OSError):
            patch.setattr(files, "os", faulty)
            record_seed(folder, 1, theorems, checkpoints, root / "samples", N)
        return {path.name: path.read_text() for path in (folder / "runs").glob("[!.]*")}

    undisturbed = FaultyOs(-1, "before", KeyboardInterrupt)
    whole = record(tmp_path / "whole", undisturbed)
    assert len(whole) == 3 and len(undisturbed.calls) > 15
    for at in range(1, len(undisturbed.calls) + 1):
        for when in ("before", "after", "halfway"):
            folder = tmp_path / f"{at}-{when}"
            assert record(folder, FaultyOs(at, when, FAULTS[at % 2])).items() <= whole.items(), at
            assert record(folder, FaultyOs(-1, "before", KeyboardInterrupt)) == whole, at


def test_grading_again_finds_nothing_to_do(result, monkeypatch):
    root, theorems, checkpoints = result
    monkeypatch.setattr("verl_fgrpo.tasks.proofs.rewards.check_proofs", lambda items, seconds: 1 / 0)
    problems = [as_problem(theorem.statement) for theorem in theorems]
    grade_samples(PROOFS, root / "samples" / checkpoints["grpo"].name, problems)


def test_a_changed_response_is_graded_again(result, tmp_path):
    root, theorems, checkpoints = result
    folder = tmp_path / "run"
    shutil.copytree(root / "samples" / checkpoints["grpo"].name, folder)
    problems = [as_problem(theorem.statement) for theorem in theorems]
    store = SampleStore(folder / "samples")
    rows = [*store.read()]
    shutil.rmtree(folder / "samples" / "parts")
    with store.writer() as writer:
        for row in rows:
            writer.append(replace(row, response="h1") if row.sample_idx == 0 else row)
    grade_samples(PROOFS, folder, problems)
    counts = count_correct(folder, problems)
    assert list(counts.num_samples) == [N] * len(problems) and list(counts.num_correct) == [N - 1] * len(problems)


def test_a_run_that_proves_nothing_still_has_a_report(result, tmp_path):
    """A start model without a right sample: no ranks, no examples, and NaN nowhere."""
    root, theorems, checkpoints = result
    problems = [as_problem(theorem.statement) for theorem in theorems]
    samples = tmp_path / "samples"
    shutil.copytree(root / "samples", samples)
    folder = samples / checkpoints[START].name
    shutil.rmtree(folder)
    with SampleStore(folder / "samples", {"run": START}).writer() as writer:
        for problem in problems:
            for index in range(N):
                writer.append(Sample("proofs", problem.problem_id, index, index, "h1", 2, "stop"))
    grade_samples(PROOFS, folder, problems)
    record_seed(tmp_path, 1, theorems, checkpoints, samples, N)
    text = write_report(load_runs(tmp_path), tmp_path, 4)
    assert "The start model proved nothing." in text and "nan" not in text.lower().replace("finance", "")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_only_runs_that_can_be_compared_stand_side_by_side(result, tmp_path):
    root, theorems, checkpoints = result
    for seed in (1, 2):
        record_seed(tmp_path, seed, theorems, checkpoints, root / "samples", N)
    runs = tmp_path / "runs"
    (runs / "seed2-f_grpo.json").unlink()
    assert {s: list(of) for s, of in load_runs(tmp_path).items()} == {1: [START, "grpo"], 2: [START, "grpo"]}
    assert {s: list(of) for s, of in load_runs(tmp_path, ["grpo", "f_grpo"]).items()} == {1: [START, "grpo", "f_grpo"]}
    with pytest.raises(ValueError, match="no seed with nsr"):
        load_runs(tmp_path, ["nsr"])
    change(runs / "seed2-grpo.json", settings={"group_size": "4", "steps": "9"})
    with pytest.raises(ValueError, match="trained with different group_size"):
        load_runs(tmp_path)
    start, kept = runs / "seed1-start_model.json", (runs / "seed1-start_model.json").read_text()
    ranked = json.loads(kept)["ranked"]
    for damage in ({"ranked": [[99, 1, "h1"], *ranked[1:]]}, {"ranked": ranked[1:]}, {"distinct": [9] * 6}):
        change(start, **damage)
        with pytest.raises(ValueError, match="seed1-start_model.json does not hold what it must"):
            load_runs(tmp_path)
    start.write_text(kept)
    change(runs / "seed1-grpo.json", num_samples=9)
    with pytest.raises(ValueError, match="other theorems or samples"):
        load_runs(tmp_path)
