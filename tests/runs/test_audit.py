"""The audit of a run: weights of fabricated dumps by hand, and against logs of every kind that verl writes."""

import csv
import json
import math
import re

import numpy as np
import pytest

from verl_fgrpo.cli import main
from verl_fgrpo.core.dumps import Group
from verl_fgrpo.core.files import write_parquet
from verl_fgrpo.runs.audit import audit_group, summarize
from verl_fgrpo.runs.logged import logged_values

PAD = "pad0123456789abcdef0123456789abcdef"


def rollouts(step, uid, scores, prompt="2 + 2?", **more):
    return [
        {"input": prompt, "output": "4", "gts": "4", "score": score, "step": step, "uid": f"{uid}_{session}_0"} | more
        for session, score in enumerate(scores)
    ]


def write(folder, step, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path):
    """Two steps of two groups; a pad row, and a session of two outputs that ends right."""
    early = rollouts(1, "a", [1, 0, 0, 0]) + rollouts(1, "b", [1, 1, 1, 0]) + rollouts(1, PAD, [0, 0], "")
    early.append(early[1] | {"uid": "a_1_1", "score": 1.0, "input": "2 + 2? Are you sure?"})  # now 2 of 4
    write(tmp_path / "rollouts", 1, early)
    write(tmp_path / "rollouts", 2, rollouts(2, "c", [0, 0, 0, 0]) + rollouts(2, "d", [1, 1, 1, 1]))
    return tmp_path


#: gamma 0.5: mean of sqrt(1/2) and sqrt(1/4); mean of 1 and 0
WEIGHTS = {1: (math.sqrt(0.5) + 0.5) / 2, 2: 0.5}


def log(run, values, name="logs/start.jsonl"):
    (run / name).parent.mkdir(exist_ok=True)
    lines = [json.dumps({"step": step, "data": {"focal/weight_mean": value}}) for step, value in values.items()]
    (run / name).write_text("\n".join(lines) + "\n")


def audit(*arguments):
    return main(["audit", *map(str, arguments)])


def test_weights_of_every_group_printed_and_as_csv(run, capsys):
    assert audit(run, "--focal-gamma", 0.5, "--csv", run / "groups.csv") == 0
    out = capsys.readouterr().out
    assert "| 1 | a |  | 4 | 2 | 0.500000 | 0.707107 |" in out and "| 1 | b |  | 4 | 3 | 0.750000 | 0.500000 |" in out
    assert "2 steps (1 to 2), 4 groups, 16 rollouts, group size 4" in out
    assert "active groups        2 " in out and "unexplained groups   0 " in out
    with (run / "groups.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["step"], row["uid"], row["rollouts"], row["correct"]) for row in rows] == [
        ("1", "a", "4", "2"), ("1", "b", "4", "3"), ("2", "c", "4", "0"), ("2", "d", "4", "4"),
    ]  # fmt: skip
    assert [float(row["weight"]) for row in rows] == pytest.approx([0.5**0.5, 0.25**0.5, 1.0, 0.0])
    assert [row["active"] for row in rows] == ["True", "True", "False", "False"]


def test_a_folder_of_dumps_alone_and_gamma_zero(run, capsys):
    assert audit(run / "rollouts", "--focal-gamma", 0) == 0
    assert "weight               1.000000" in capsys.readouterr().out  # 0 ** 0 = 1: exactly the base method


def test_update_scale_and_tail_miss_by_hand():
    groups = [Group(1, "a", "p", None, (1.0, 0.0, 0.0, 0.0), 1), Group(1, "b", "q", None, (1.0, 1.0), 2)]
    audited = [audit_group(group, 1.0) for group in groups]
    # a: mean 1/4, std 1/2: |A| = 3/4 + 3 * 1/4, over 1/2 + 1e-6; b has no advantage
    assert audited[0].magnitude == pytest.approx(1.5 / (0.5 + 1e-6)) and audited[1].magnitude == 0
    both = summarize(audited)
    assert both.update_scale == pytest.approx(0.75)  # the weight of the only group with an advantage
    assert both.tail_miss_risk == pytest.approx(0.9 / 2)  # 1[0 < X < N] 0.9^X, mean over groups
    assert both.bins == (0, 0.5, 0, 0, 0, 0.5)
    assert math.isnan(summarize(audited[1:]).update_scale)


def test_unexplained_groups_are_told_with_the_remedy(tmp_path, capsys):
    """Scores of -1 and 0.2: above no threshold of 0.5, and yet the groups have advantages."""
    write(tmp_path, 1, rollouts(1, "a", [-1, 0.2, 0.2, -1]) + rollouts(1, "b", [-1] * 4))
    assert audit(tmp_path, "--focal-gamma", 1) == 0
    out = capsys.readouterr().out
    assert "unexplained groups   1 " in out and "is it between wrong and right scores?" in out
    assert audit(tmp_path, "--focal-gamma", 1, "--threshold", 0) == 0
    assert "unexplained groups   0 " in capsys.readouterr().out


def test_acc_over_the_threshold_and_thresholds_by_source(tmp_path, capsys):
    rows = rollouts(1, "a", [0.7, 0.7], data_source="code") + rollouts(1, "b", [0.7, 0.2], data_source="math")
    rows += [row | {"acc": acc} for row, acc in zip(rollouts(1, "c", [-0.3, 0.9]), [1, 0], strict=True)]
    write(tmp_path, 1, rows)
    assert audit(tmp_path, "--focal-gamma", 1, "--threshold-by-source", "code=0.99", "--csv", tmp_path / "g.csv") == 0
    with (tmp_path / "g.csv").open(newline="") as handle:
        found = {row["uid"]: (row["data_source"], int(row["correct"])) for row in csv.DictReader(handle)}
    assert found == {"a": ("code", 0), "b": ("math", 1), "c": ("", 1)}
    assert audit(tmp_path, "--focal-gamma", 1, "--threshold-by-source", "code") == 1
    assert "must be SOURCE=NUMBER" in capsys.readouterr().err


def test_the_data_file_tells_the_sources_of_v1_dumps_which_have_none(tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from omegaconf import OmegaConf

    write(tmp_path / "rollouts", 1, rollouts(1, "a", [0.7, 0.2], "user Sort. assistant") + rollouts(1, "b", [0.7, 0.2]))
    given = ["--focal-gamma", 1, "--threshold-by-source", "code=0.99"]
    assert audit(tmp_path, *given) == 1 and "name the training file with --data-file" in capsys.readouterr().err
    rows = [
        {"prompt": [{"role": "user", "content": text}], "reward_model": {"ground_truth": "4"}, "data_source": source}
        for text, source in (("Sort.", "code"), ("2 + 2?", "math"))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    log(tmp_path, {1: (1 + 0.5) / 2})  # none of a is correct, half of b
    assert audit(tmp_path, *given, "--data-file", tmp_path / "train.parquet") == 0
    assert "log: agrees" in capsys.readouterr().out
    OmegaConf.save({"data": {"train_files": [str(tmp_path / "train.parquet")]}}, tmp_path / "config.yaml")
    assert audit(tmp_path, *given) == 0
    pq.write_table(pa.Table.from_pylist([*rows, rows[0] | {"data_source": "math"}]), tmp_path / "train.parquet")
    assert audit(tmp_path, *given) == 1 and "of several data sources" in capsys.readouterr().err


def test_mean_reward_of_the_official_keys(tmp_path):
    """mu = clamp((mean R - Rw) / (Rc - Rw), 0, 1): (0.25 + 1) / 2 of scores with partial credit."""
    group = audit_group(Group(1, "a", "p", None, (-1.0, 1.0, 0.5, 0.5), 3), 1.0, (-1.0, 1.0))
    assert (group.success_rate, group.weight) == (0.625, 0.375)
    assert audit_group(Group(1, "a", "p", None, (3.0, 2.0), 2), 1.0, (0.0, 1.0)).success_rate == 1.0
    write(tmp_path, 1, rollouts(1, "a", [0, 1]))
    assert audit(tmp_path, "--focal-gamma", 1, "--reward-correct", 0) == 1


def test_a_log_that_agrees_and_one_that_does_not(run, capsys):
    log(run, WEIGHTS | {1: WEIGHTS[1] + 9e-7, 3: 0.1})
    assert audit(run, "--focal-gamma", 0.5) == 0
    assert "log: agrees within 1e-06: focal/weight_mean of 2 steps (1 to 2)" in capsys.readouterr().out
    log(run, {2: 0.500002})
    assert audit(run, "--focal-gamma", 0.5) == 1
    out = capsys.readouterr().out
    assert "DISAGREES at 1 steps" in out and "step 2: logged 0.50000200, from the dump 0.50000000" in out
    assert "1 steps are not logged there (1)" in out
    assert audit(run / "rollouts", "--focal-gamma", 0.5) == 1  # the log of the run that the dumps lie in
    log(run, {2: math.nan})
    assert audit(run, "--focal-gamma", 0.5) == 1


def test_a_later_start_counts_and_what_is_no_log_is_passed_over(run):
    log(run, {1: 0.9, 2: 0.9}, "metrics-0.jsonl")
    log(run, WEIGHTS, "metrics-1.jsonl")
    (run / "metrics-1.jsonl").open("a").write('{"step": 2, "data": {"focal/weight_me')  # killed there
    (run / "notes.jsonl").write_text('{"focal/weight_mean": 1}\n[1]\n')
    values, source = logged_values(run, "focal/weight_mean")
    assert values == WEIGHTS and source.endswith("metrics-0.jsonl, " + str(run / "metrics-1.jsonl"))


def test_the_console_log_and_tensorboard(run, tmp_path, capsys):
    from verl.utils.logger.aggregate_logger import concat_dict_to_str

    (run / "run.log").write_text(
        "".join(
            "(TaskRunner pid=7) "
            + concat_dict_to_str({"critic/score": np.float64(1.0), "focal/weight_mean": number(value), "x": 1}, step)
            + "\n"
            for (step, value), number in zip(WEIGHTS.items(), (float, np.float64), strict=True)
        )
    )
    assert logged_values(run, "focal/weight_mean")[0] == WEIGHTS
    assert audit(run, "--focal-gamma", 0.5) == 0 and "log: agrees" in capsys.readouterr().out
    (run / "run.log").unlink()
    assert audit(run, "--focal-gamma", 0.5) == 0 and "log: nothing to compare, no log" in capsys.readouterr().out

    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run / "tensorboard")) as writer:
        for step, value in WEIGHTS.items():
            writer.add_scalar("focal/weight_mean", value, step)
    assert audit(run, "--focal-gamma", 0.5) == 0 and "TensorBoard" in capsys.readouterr().out
    assert audit(run, "--focal-gamma", 1.0) == 1


def test_a_cut_dump_is_left_out_and_told(run, capsys):
    path = run / "rollouts" / "2.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert audit(run, "--focal-gamma", 0.5) == 0
    out, err = capsys.readouterr()
    assert "1 steps (1 to 1)" in out and "step 2 is left out" in err and "line 8 is no JSON" in err


def test_many_groups_are_in_the_csv_alone_and_the_figure_is_drawn(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for step in range(1, 61):
        write(
            tmp_path / "rollouts",
            step,
            rollouts(step, "a", rng.integers(0, 2, 8).tolist()) + rollouts(step, "b", [0] * 8),
        )
    assert audit(tmp_path, "--focal-gamma", 0.5, "--figure", tmp_path / "a.svg") == 0
    out = capsys.readouterr().out
    assert "| step | group |" not in out and "| 1 to 6 |" in out and "| 55 to 60 |" in out
    text = (tmp_path / "a.svg").read_text()
    assert all(label in text for label in ("mu = 0", "update scale", "pass@8", "tail miss risk"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--focal-gamma", "-1"], "--focal-gamma is -1.0, but it must be a finite number of at least 0"),
        (["--focal-gamma", "1", "--threshold-by-source", "a=nan"], "--threshold-by-source is 'a=nan', but it must be"),
    ],
)
def test_refused(run, capsys, arguments, message):
    assert audit(run, *arguments) == 1 and message in capsys.readouterr().err


def test_no_dumps(tmp_path, capsys):
    assert audit(tmp_path / "nowhere", "--focal-gamma", 1) == 1
    assert "train with trainer.rollout_data_dir=RUN/rollouts" in capsys.readouterr().err
    write(tmp_path, 1, [])
    assert audit(tmp_path, "--focal-gamma", 1) == 1 and "holds no rollouts" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--threshold", "--reward-correct", "--reward-wrong"])
@pytest.mark.parametrize("number", ["nan", "inf", "1e999"])
def test_numbers_that_are_none(run, option, number):
    with pytest.raises(SystemExit, match="2"):
        audit(run, "--focal-gamma", 0.5, option, number)


@pytest.mark.parametrize("value", ["null", '"abc"', "[1]", "9" * 400, "{}"])
def test_values_that_are_no_numbers_are_passed_over(run, value):
    line = '{"step": %s, "data": {"focal/weight_mean": %s}}\n'
    (run / "metrics.jsonl").write_text(
        line % (1, value) + line % ("1e999", 0.5) + "[" * 100_000 + "focal/weight_mean\n"
    )
    (run / "run.log").write_text("step:1 - focal/weight_mean:1.2.3\n" + f"step:{'9' * 5000} - focal/weight_mean:1\n")
    assert logged_values(run, "focal/weight_mean")[0] == {}


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00", "trainer: {rollout_data_dir: '${x}'}"])
def test_a_configuration_that_cannot_be_read(run, text, capsys):
    (run / "config.yaml").write_text(text)
    assert audit(run, "--focal-gamma", 0.5) == 1
    assert "config.yaml does not tell trainer.rollout_data_dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("02.jsonl", r"02\.jsonl and 2\.jsonl are of the same step; move one of them away"),
        ("3.jsonl.gz", r"3\.jsonl\.gz is compressed, so its step would be left out; unpack it"),
    ],
)
def test_files_that_would_be_left_out_without_a_word(run, name, message, capsys):
    (run / "rollouts" / name).write_text("")
    assert audit(run, "--focal-gamma", 0.5) == 1 and re.search(message, capsys.readouterr().err)


def test_two_steps_in_one_file_are_no_group(run, capsys):
    write(run / "rollouts", 3, rollouts(3, "a", [1, 0]) + rollouts(4, "b", [1, 0]))
    assert audit(run, "--focal-gamma", 0.5) == 1
    assert "3.jsonl, line 3: step is 4, but it must be 3, as above: a dump holds one step" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row",
    [
        {"x": 1},
        {"prompt": None, "reward_model": None, "data_source": "a"},
        {"prompt": "q", "reward_model": {"ground_truth": "2"}, "data_source": "a"},
        {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"style": "rule"}, "data_source": "a"},
        {"prompt": [{"role": "user"}], "reward_model": {"ground_truth": "2"}, "data_source": None},
    ],
)
def test_data_files_of_another_kind(run, row, capsys):
    write_parquet(run / "data.parquet", [row])
    words = ["--focal-gamma", 1, "--threshold-by-source", "a=0.5", "--data-file", run / "data.parquet"]
    assert audit(run, *words) == 1 and re.search(r"data\.parquet is no|row 0 is", capsys.readouterr().err)
