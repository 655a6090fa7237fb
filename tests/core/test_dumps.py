"""The reader of verl's dumps: pad rows, sessions, problem ids, odd values; and files that verl itself writes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from verl_fgrpo.core.dumps import dump_files, final_rows, find_dumps, read_groups, read_rows
from verl_fgrpo.core.rows import CutLineError

PAD = "pad0123456789abcdef0123456789abcdef"


def row(uid, score, prompt="What is 1 + 1?", gts="2", **more):
    return {"input": prompt, "output": "so", "gts": gts, "score": score, "step": 3, "uid": uid} | more


def write(folder, rows, name="3.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in rows), encoding="utf-8")
    return path


def test_a_pad_row_is_no_unsolved_prompt(tmp_path):
    path = write(
        tmp_path, [row("u_0_0", 1.0), row("u_1_0", 0.0), row(f"{PAD}_0_0", 0.0, ""), row(f"{PAD}_1_0", 0.0, "")]
    )
    (group,) = read_groups(path)
    assert (group.uid, group.scores, group.num_correct, group.success_rate) == ("u", (1.0, 0.0), 1, 0.5)
    assert [row.is_padding for row in read_rows(path)] == [False, False, True, True]


def test_a_session_counts_once_by_its_output_of_the_highest_index(tmp_path):
    """In any order; 10 comes after 9. A later output has a longer prompt, but it is the same problem."""
    rows = [
        row("u_1_10", 1.0, "What is 1 + 1? And then?"),
        row("u_0_0", 0.0),
        row("u_1_9", 0.0, "What is 1 + 1? And?"),
        row("u_1_0", 0.0),
        row("u_0_1", 1.0, "What is 1 + 1? Sure?"),
        row("u_2_0", 0.0),
    ]
    path = write(tmp_path, rows)
    assert [(final.session, final.index) for final in final_rows(path)] == [("u_1", 10), ("u_0", 1), ("u_2", 0)]
    assert {final.input for final in final_rows(path)} == {"What is 1 + 1?"}
    assert len({final.problem_id for final in final_rows(path)}) == 1
    (group,) = read_groups(path)
    assert (group.size, group.num_correct) == (3, 2)


def test_two_uids_with_one_prompt_are_two_groups_of_one_problem(tmp_path):
    groups = read_groups(write(tmp_path, [row("u_0_0", 1.0), row("v_0_0", 0.0)]))
    assert [group.uid for group in groups] == ["u", "v"]
    assert groups[0].problem_id == groups[1].problem_id


def test_without_uids_equal_prompt_and_gold_answer_are_a_group(tmp_path):
    rows = [row("", 1.0), row("", 0.0), row("", 0.0, gts="3"), row("", 1.0)]
    for line in rows:
        del line["uid"]
    groups = read_groups(write(tmp_path, rows))
    assert [group.scores for group in groups] == [(1.0, 0.0, 1.0), (0.0,)]


@pytest.mark.parametrize("gts", ["2", 2, ["2", "two"], {"target": ["2"], "a": 1}, None, [["2"]], True, 0.5])
def test_a_gold_answer_of_any_json_type_names_the_problem(tmp_path, gts):
    path = write(tmp_path, [row("u_0_0", 1.0, gts=gts), row("v_0_0", 1.0, gts="another")])
    first, other = read_rows(path)
    assert first.gts == gts
    assert first.problem_id != other.problem_id and len(first.problem_id) == 16
    assert first.problem_id == next(read_rows(write(tmp_path, [row("x_0_0", 0.0, gts=gts)], "9.jsonl"))).problem_id


def test_acc_decides_where_there_is_one_and_else_the_threshold(tmp_path):
    rows = [
        row("u_0_0", -0.4, acc=1.0),  # right, with an overlong penalty
        row("u_1_0", 0.9, acc=False),
        row("u_2_0", 0.9, acc=None),  # another function of the run reports acc, this one does not
        row("u_3_0", 0.3, acc=0.7),  # a bare number, which verl stores as acc before its penalty
        row("u_4_0", 0.7, data_source="code"),
        row("u_5_0", 0.7, data_source="math"),
        row("u_6_0", "1.0", acc="False"),  # numpy values as the legacy trainer writes them
    ]
    path = write(tmp_path, rows)
    assert [line.is_correct({"code": 0.99}.get(line.data_source, 0.5)) for line in read_rows(path)] == [
        True, False, True, True, False, True, False,
    ]  # fmt: skip
    assert [line.data_source for line in read_rows(path)][-3:] == ["code", "math", None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "high"}, "line 2: score is 'high', but it must be a number"),
        ({"score": None}, "line 2: score is None, but it must be a number"),
        ({"score": float("inf")}, "line 2: score is inf"),
        ({"acc": "yes"}, "line 2: acc is 'yes', but it must be a number"),
        ({"acc": float("nan")}, "line 2: acc is nan"),
        ({"data_source": ["a"]}, r"line 2: data_source is \['a'\], but it must be text or a whole number"),
        ({"uid": {"a": 1}}, "line 2: uid is {'a': 1}, but it must be text or a whole number"),
        ({"input": [{"role": "user"}]}, r"line 2: input is .*, but it must be text"),
        ({"score": float("nan")}, "line 2: score is NaN, which is neither right nor wrong"),
    ],
)
def test_a_value_that_tells_nothing_is_named_with_file_and_line(tmp_path, change, message):
    path = write(tmp_path, [row("u_0_0", 1.0), row("u_1_0", 1.0) | change])
    with pytest.raises(ValueError, match=message) as error:
        read_groups(path)
    assert str(path) in str(error.value)


def test_a_nan_score_does_not_matter_where_acc_decides(tmp_path):
    (group,) = read_groups(write(tmp_path, [row("u_0_0", float("nan"), acc=1)]))
    assert group.num_correct == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"output": "x", "score": 1}', r"line 1 is no row of a verl dump.*trainer\.rollout_data_dir"),
        ('"text"', "line 1 must be a JSON object"),
        ("[" * 200_000, "line 1 is no JSON"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path, line, message):
    path = tmp_path / "1.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        list(read_rows(path))


def test_a_mark_and_windows_line_ends_and_odd_separators_are_tolerated(tmp_path):
    lines = [json.dumps(row("u_0_0", 1.0, "a\u2028b\x85c"), ensure_ascii=False), "", json.dumps(row("u_1_0", 0.0))]
    (tmp_path / "1.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    assert [line.where[-6:] for line in read_rows(tmp_path / "1.jsonl")] == ["line 1", "line 3"]
    assert next(read_rows(tmp_path / "1.jsonl")).input == "a\u2028b\x85c"


def test_every_way_to_cut_the_last_line_is_told_and_no_row_comes_before(tmp_path):
    path = write(tmp_path, [row("u_0_0", 1.0, "é"), row("u_1_0", 0.0, "é")])
    path.write_text(path.read_text().encode().decode("unicode_escape"), encoding="utf-8")  # as verl: not ASCII alone
    whole = path.read_bytes()
    assert len(read_groups(path)) == 1
    for length in range(whole.index(b"\n") + 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            CutLineError,
            match=r"line 2 is no JSON .*: the file ends within it, so a process still writes the file, or was killed",
        ):
            next(final_rows(path))
    path.write_bytes(whole[:-1])  # an editor took the last line end away
    assert len(list(read_rows(path))) == 2
    path.write_bytes(whole.replace(b'"score"', b'"sc', 1))
    with pytest.raises(ValueError, match="line 1 is no JSON") as error:
        list(read_rows(path))
    assert not isinstance(error.value, CutLineError)


def test_dump_files_are_numbers_in_order(tmp_path):
    for name in ("10.jsonl", "9.jsonl", "0.jsonl", "notes.jsonl", "9.jsonl.bak", "²." + "jsonl"):
        (tmp_path / name).write_text("")
    assert list(dump_files(tmp_path)) == [0, 9, 10]
    assert dump_files(tmp_path / "nowhere") == {}


def test_the_dumps_of_a_run_are_found(tmp_path):
    def steps(kind):
        return list(find_dumps(tmp_path, kind))

    with pytest.raises(ValueError, match=r"no rollout dumps .* or train with trainer\.rollout_data_dir=RUN/rollouts"):
        steps("rollout")
    write(tmp_path / "val_dumps", [], "5.jsonl")
    write(tmp_path / "train_dumps", [], "1.jsonl")
    assert (steps("rollout"), steps("validation")) == ([1], [5])
    write(tmp_path / "more", [], "2.jsonl")
    with pytest.raises(ValueError, match=r"several folders .* \(more, train_dumps\); name one"):
        steps("rollout")
    write(tmp_path / "elsewhere", [], "3.jsonl")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(f"trainer:\n  rollout_data_dir: {tmp_path}/elsewhere\n")
    assert steps("rollout") == [3]
    write(tmp_path / "rollouts", [], "4.jsonl")
    assert steps("rollout") == [4]
    write(tmp_path, [], "6.jsonl")
    assert steps("rollout") == [6]


@pytest.mark.parametrize(
    "module", ["verl.trainer.ppo.v1.trainer_base.PPOTrainer", "verl.trainer.ppo.ray_trainer.RayPPOTrainer"]
)
def test_files_that_verl_writes(tmp_path, module):
    """By verl's own writer, with the values its trainers hand to it: numpy numbers, booleans, nested gold answers."""
    path, _, name = module.rpartition(".")
    writer = getattr(pytest.importorskip(path), name)._write_generations
    extra = {"uid": ["u_0_0", "u_1_0", f"{PAD}_0_0"], "acc": [np.bool_(True), np.float32(0.0), None]}
    gold = [{"target": np.array(["2"])}, {"target": np.array(["2"])}, None]
    writer(["1+1?", "1+1?", ""], ["2", "3\n\u2028", ""], gold, [1.0, 0.0, 0.0], extra, str(tmp_path), 7)
    (group,) = read_groups(tmp_path / "7.jsonl")
    expected = SimpleNamespace(step=7, uid="u", scores=(1.0, 0.0), num_correct=1)
    assert {name: getattr(group, name) for name in vars(expected)} == vars(expected)
