"""pass@k of validations from verl's dumps: by hand, across benchmarks, as a command."""

import csv
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from verl_fgrpo.cli import main
from verl_fgrpo.core.sources import PromptSources
from verl_fgrpo.host.val_metrics import AVERAGE
from verl_fgrpo.host.validation import pass_at_k_of, read_counts, summary

SYSTEM = {"role": "system", "content": "Answer in a box."}


def val_row(benchmark, problem, *answers):
    """A row of the validation file, in verl's schema."""
    return {
        "data_source": benchmark,
        "prompt": [SYSTEM, {"role": "user", "content": problem}],
        "reward_model": {"style": "rule", "ground_truth": list(answers)},
    }


ROWS = [val_row("amc", "What is 1 + 1?", "2"), val_row("amc", "Tom: What is 1 + 1?", "2"), val_row("aime", "Why?", "7")]


def samples(row, correct, uid, step=5, **more):
    """Dumped samples of a row, one per entry of `correct`, as verl writes them."""
    prompt = "system\n" + "\n".join(message["content"] for message in row["prompt"]) + "\nassistant\n"
    return [
        {
            "input": prompt, "output": "so", "gts": row["reward_model"]["ground_truth"], "score": float(right),
            "step": step, "acc": float(right), "uid": f"{uid}_{session}_0", **more,
        }
        for session, right in enumerate(correct)
    ]  # fmt: skip


#: c of n = 4: 1 and 3 in amc, 0 in aime
DUMP = samples(ROWS[0], [0, 1, 0, 0], "a") + samples(ROWS[1], [1, 1, 0, 1], "b") + samples(ROWS[2], [0, 0, 0, 0], "c")


LINE = json.dumps(DUMP[0] | {"step": 6}) + "\n"


def write(run, step, rows):
    path = run / "validation" / f"{step}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values(rows):
    return {(row["benchmark"], int(row["k"])): float(row["pass_at_k"]) for row in rows}


BY_HAND = {
    ("amc", 1): (1 / 4 + 3 / 4) / 2,
    ("amc", 2): ((1 - 3 / 6) + (1 - 0 / 6)) / 2,  # C(3, 2) = 3 and C(1, 2) = 0 of C(4, 2) = 6 pairs miss
    ("amc", 4): 1.0,  # both have a correct one among all four
    ("aime", 1): 0.0,
    ("aime", 2): 0.0,
    ("aime", 4): 0.0,
    (AVERAGE, 1): 0.25,
    (AVERAGE, 2): 0.375,
    (AVERAGE, 4): 0.5,
}


def test_by_hand(tmp_path):
    rows = pass_at_k_of(5, read_counts(write(tmp_path, 5, DUMP), PromptSources(ROWS)))
    assert values(rows) == pytest.approx(BY_HAND)
    assert all(row["low"] <= row["pass_at_k"] <= row["high"] for row in rows if row["benchmark"] != AVERAGE)
    assert summary(rows).splitlines()[2:] == [
        "| 5 | amc | 50.0 | 75.0 | 100.0 |", "| 5 | aime | 0.0 | 0.0 | 0.0 |", "| 5 | average | 25.0 | 37.5 | 50.0 |",
    ]  # fmt: skip


def test_a_problem_of_two_benchmarks_counts_in_both(tmp_path):
    rows = [ROWS[0], val_row("math", "What is 1 + 1?", "2")]
    dump = samples(rows[0], [1, 1], "a") + samples(rows[1], [0, 0], "b")
    counts = read_counts(write(tmp_path, 5, dump), PromptSources(rows))
    assert sorted(counts.benchmarks) == ["amc", "math"] and counts.num_samples.tolist() == [2, 2]


def test_a_row_of_the_file_twice_is_two_problems(tmp_path):
    counts = read_counts(
        write(tmp_path, 5, samples(ROWS[0], [1], "a") + samples(ROWS[0], [0], "b")), PromptSources(ROWS)
    )
    assert counts.num_samples.tolist() == [1, 1] and len(set(counts.problem_ids)) == 2


def test_the_last_output_of_a_session_counts_and_pad_rows_do_not(tmp_path):
    turns = samples(ROWS[2], [1, 0], "c") + samples(ROWS[2], [0], "pad0123456789abcdef0123456789abcdef")
    turns[0]["uid"], turns[1]["uid"] = "c_0_0", "c_0_1"
    turns[1]["input"] += "And then?"
    counts = read_counts(write(tmp_path, 5, turns), PromptSources(ROWS[2:]))
    assert counts.num_samples.tolist() == [1] and counts.num_correct.tolist() == [0]


def test_white_space_that_decoding_changes_does_not_matter_but_another_problem_is_refused(tmp_path):
    moved = [row | {"input": row["input"].replace(" ", "  ").replace("\n", "")} for row in DUMP]
    assert read_counts(write(tmp_path, 5, moved), PromptSources(ROWS)).benchmarks == ("amc", "amc", "aime")
    stranger = samples(val_row("amc", "What is 2 + 2?", "4"), [1], "d")
    with pytest.raises(ValueError, match=r"gold answer \['4'\] and the prompt .*What is 2 \+ 2.*name the file"):
        read_counts(write(tmp_path, 5, stranger), PromptSources(ROWS))


@pytest.mark.parametrize("gold", ["2", 2, {"target": ["2"]}, ["2", "two"]])
def test_gold_answers_of_any_type_tell_the_benchmark(tmp_path, gold):
    row = val_row("amc", "What is 1 + 1?") | {"reward_model": {"ground_truth": gold}}
    assert read_counts(write(tmp_path, 5, samples(row, [1], "a")), PromptSources([row])).benchmarks == ("amc",)


def test_success_is_acc_and_without_it_the_score(tmp_path):
    shaped = [row | {"score": row["score"] - 0.9} for row in DUMP]  # overlong penalty: acc still tells
    assert read_counts(write(tmp_path, 5, shaped), PromptSources(ROWS)).num_correct.tolist() == [1, 3, 0]
    plain = [{name: value for name, value in row.items() if name != "acc"} for row in DUMP]
    assert read_counts(write(tmp_path, 5, plain), PromptSources(ROWS)).num_correct.tolist() == [1, 3, 0]
    assert read_counts(write(tmp_path, 5, plain), PromptSources(ROWS), threshold=1).num_correct.tolist() == [0, 0, 0]


def test_without_the_validation_file_the_samples_own_source_or_all(tmp_path):
    assert read_counts(write(tmp_path, 5, DUMP)).benchmarks == ("all",) * 3
    own = [row | {"data_source": "mine"} for row in DUMP]
    assert read_counts(write(tmp_path, 5, own)).benchmarks == ("mine",) * 3
    with pytest.raises(ValueError, match="holds no rollouts"):
        read_counts(write(tmp_path, 5, []))


@pytest.mark.parametrize(
    "content", ["", "\n", "[]", "\ufeff[]\n", LINE.replace('"a_', '"pad0a_'), LINE[:-9], "\0" * 99]
)
def test_an_unfinished_dump_is_left_out_and_the_others_are_used(tmp_path, capsys, content):
    """By every command that reads dumps: exit code 0, and the first line says so; 1 if there is no other."""
    run = tmp_path / "run"
    write(run, 5, DUMP)
    (run / "validation" / "6.jsonl").write_text(content)
    shutil.copytree(run / "validation", run / "rollouts")
    for command in (["val-passk", run], ["audit", run, "--focal-gamma", "1"], ["tail-miss", "--run", run / "rollouts"]):
        assert main(list(map(str, command))) == 0
        told = capsys.readouterr()
        assert "step 6 is left out" in told.err
        if command[0] == "val-passk":
            assert told.out.startswith("Left out, for their dumps are not whole: steps 6.\n")
        for kind in ("validation", "rollouts"):
            (run / kind / "5.jsonl").rename(run / kind / "kept")
        assert main(list(map(str, command))) == 1
        assert "no dump is whole; step 6 is left out" in capsys.readouterr().err
        for kind in ("validation", "rollouts"):
            (run / kind / "kept").rename(run / kind / "5.jsonl")


def test_the_command(tmp_path, capsys):
    run = tmp_path / "run"
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "val.parquet")
    assert main(["val-passk", str(run)]) == 1
    assert "trainer.validation_data_dir=RUN/validation" in capsys.readouterr().err
    run.mkdir()
    config = {"data": {"val_files": str(tmp_path / "val.parquet")}, "trainer": {"validation_data_dir": "elsewhere"}}
    OmegaConf.save(OmegaConf.create(config), run / "config.yaml")
    write(run, 5, DUMP)
    write(run, 10, DUMP[:-1])  # verl goes on when a rollout fails
    cut = write(run, 15, DUMP)
    cut.write_bytes(cut.read_bytes()[:-40])
    assert main(["val-passk", str(run)]) == 0
    out, err = capsys.readouterr()
    assert (
        "| 5 | average | 25.0 | 37.5 | 50.0 |" in out and "| 10 | aime | 0.0 | 0.0 |  |" in out and "| 15 |" not in out
    )
    assert "step 10: 1 of 3 problems have fewer than 4 samples, the fewest 3, and k goes no further" in err
    assert "step 15 is left out" in err and "line 12 is no JSON" in err
    with (run / "passk.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    assert values(row for row in table if row["step"] == "5") == pytest.approx(BY_HAND)
    assert list(table[0]) == ["step", "benchmark", "k", "pass_at_k", "low", "high", "problems", "samples"]

    (tmp_path / "val.parquet").unlink()
    assert (
        main(["val-passk", str(run)]) == 1
        and "does not exist; name the one that the run used" in capsys.readouterr().err
    )
    # a folder of dumps alone, whose reward function notes no source
    assert main(["val-passk", str(run / "validation"), "--csv", str(tmp_path / "x.csv")]) == 0
    assert "| 5 | all | 33.3 | 50.0 | 66.7 |" in capsys.readouterr().out and (tmp_path / "x.csv").exists()
