"""Theorems, data files, reward and the counting of proofs."""

import asyncio
import inspect
import json
import math
import threading
from dataclasses import replace

import pytest
from checker import verdict

from verl_fgrpo.core.rows import iter_rows
from verl_fgrpo.evaluation.graders import grader_of
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.tasks.common.model import ModelSize
from verl_fgrpo.tasks.common.start_model import SftSettings
from verl_fgrpo.tasks.common.tokenizer import END
from verl_fgrpo.tasks.proofs import rewards
from verl_fgrpo.tasks.proofs.diversity import (
    Found,
    distinct_counts,
    enumerated_share,
    moving_average,
    pick_examples,
    rank_correct,
    unique_proofs_per_step,
    uplift_by_rank,
)
from verl_fgrpo.tasks.proofs.formulas import read, shape, truth_table
from verl_fgrpo.tasks.proofs.prepare import ProofSettings, prepare
from verl_fgrpo.tasks.proofs.rewards import compute_score, grade_proofs, proof_of
from verl_fgrpo.tasks.proofs.task import PROOFS, TOKENIZER, as_problem, read_heldout
from verl_fgrpo.tasks.proofs.theorems import LEAST_SHORTEST_PROOF, MAX_PROOF_TOKENS, Theorem, load_theorems

TINY = SftSettings(steps=3, batch_size=8, model=ModelSize(layers=1, hidden=32, mlp=64, heads=2, kv_heads=1))


@pytest.fixture(scope="module")
def settings():
    return ProofSettings(supervised=20, train=12, heldout=8, sft=TINY, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory, settings):
    folder = tmp_path_factory.mktemp("proofs") / "data"
    prepare(folder, settings, progress=False, say=lambda text: None)
    return folder


def all_theorems(data):
    return load_theorems(data / "theorems.json")


def test_every_theorem_is_one_and_its_proofs_are_proofs(data):
    for theorem in all_theorems(data):
        assert truth_table(read(theorem.statement)) == 0xFFFF
        lengths = [len(proof.split(" ")) for proof in theorem.proofs]
        assert len(lengths) >= 2 and min(lengths) >= LEAST_SHORTEST_PROOF and max(lengths) <= MAX_PROOF_TOKENS
        assert lengths == sorted(lengths) and len(set(theorem.proofs)) == len(lengths)
        assert all(verdict(theorem.statement, proof) == "proved" for proof in theorem.proofs)


def test_splits_share_no_theorem_up_to_names_and_orders(data):
    train = [row["reward_model"]["ground_truth"] for row in iter_rows(data / "train.parquet")]
    heldout = [theorem.statement for theorem in read_heldout(data)]
    theorems = [theorem.statement for theorem in all_theorems(data)]
    supervised = [statement for statement in theorems if statement not in {*train, *heldout}]
    shapes = [{shape(read(statement)) for statement in part} for part in (train, heldout, supervised)]
    assert [len(part) for part in shapes] == [12, 8, 20]
    assert len(set.union(*shapes)) == 12 + 8 + 20


def test_rows_are_what_verl_reads(data):
    rows = list(iter_rows(data / "val.parquet"))
    for i, (row, theorem, problem) in enumerate(zip(rows, read_heldout(data), PROOFS.read_problems(data), strict=True)):
        assert row["prompt"] == [{"role": "user", "content": theorem.statement + "\n"}]
        assert row["reward_model"] == {"style": "rule", "ground_truth": theorem.statement}
        assert row["extra_info"] == {"index": i, "split": "val", "problem_id": problem.problem_id}
        assert problem == as_problem(theorem.statement) and problem.prompt == row["prompt"][0]["content"]


def test_the_tokenizer_holds_every_text_and_auto_tokenizer_agrees(data):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(data / "start_model")
    manifest = json.loads((data / "manifest.json").read_text())
    for theorem in all_theorems(data):
        prompt = TOKENIZER.encode(theorem.statement + "\n")
        assert loaded.encode(theorem.statement + "\n") == prompt and len(prompt) <= manifest["prompt_tokens"]
        for proof in theorem.proofs:
            ids = TOKENIZER.encode(proof)
            assert loaded.encode(proof) == ids and len(ids) < manifest["response_limit"]
            assert proof_of(loaded.decode([*ids, TOKENIZER.end_id])) == proof == TOKENIZER.decode(ids)


def test_the_same_seed_gives_the_same_theorems_with_any_number_of_processes(tmp_path, data, settings):
    other = tmp_path / "data"
    prepare(other, settings, jobs=3, progress=False, say=lambda text: None)
    assert (other / "theorems.json").read_bytes() == (data / "theorems.json").read_bytes()
    with pytest.raises(ValueError, match="seed: found 3, asked 4"):
        prepare(other, replace(settings, seed=4), progress=False)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="heldout = 0: must be at least 1"):
        ProofSettings(heldout=0)


RIGHT = ("A → A → A", "fun h1 h2 => h1")


@pytest.fixture(autouse=True)
def fresh_reward():
    rewards._gatherer.cache_clear()
    rewards.require_kernel.cache_clear()
    yield
    rewards._gatherer.cache_clear()
    rewards.require_kernel.cache_clear()


def test_reward(kernel):
    async def main():
        answers = ["fun h1 h2 => h1", f"fun h1 h2 => h2 {END}", f"fun h7 h7 => h7{END}", "fun h1 => h1", "", END, "\n"]
        answers += [f"fun h1 h2 => h1 {END} h1"]
        return [row["acc"] for row in await asyncio.gather(*[compute_score("", a, "A → A → A") for a in answers])]

    assert asyncio.run(main()) == [True, True, True, False, False, False, False, False]
    assert asyncio.run(compute_score("x", *reversed(RIGHT), {"index": 1}, reward_router_address=None)) == {
        "score": 1.0,
        "acc": True,
    }


def test_verl_awaits_it(kernel):
    """verl's own loader and its test of whether a reward function is to be awaited."""
    pytest.importorskip("verl")
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn

    named = {"path": "pkg://verl_fgrpo.tasks.proofs.rewards", "name": "compute_score"}
    function = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": named}}))
    assert inspect.iscoroutinefunction(function)
    scored = function(data_source="x", solution_str=RIGHT[1], ground_truth=RIGHT[0], extra_info={}, more=1)
    assert asyncio.run(scored) == {"score": 1.0, "acc": True}


def test_what_is_asked_for_together_is_one_batch_in_another_thread(monkeypatch):
    calls = []

    def check(items, seconds):
        calls.append((len(items), threading.current_thread() is threading.main_thread()))
        return ["proved"] * len(items)

    monkeypatch.setattr(rewards, "check_proofs", check)
    monkeypatch.setattr(rewards, "kernel_report", lambda: (True, ""))
    ticks = []

    async def main():
        async def clock():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.001)

        task = asyncio.create_task(clock())
        await asyncio.gather(*[compute_score("", RIGHT[1], RIGHT[0]) for _ in range(300)])
        task.cancel()

    asyncio.run(main())
    assert calls == [(300, False)]
    assert ticks  # the event loop went on


def test_no_kernel_is_an_error_not_a_reward(monkeypatch):
    monkeypatch.setenv("LEAN", "/bin/false")
    with pytest.raises(RuntimeError, match="/bin/false does not tell right proofs from wrong ones"):
        asyncio.run(compute_score("", RIGHT[1], RIGHT[0]))
    with pytest.raises(RuntimeError, match="/bin/false"):
        grade_proofs([RIGHT])


def test_verdicts_for_the_evaluation(kernel):
    statement = RIGHT[0]
    assert grade_proofs([]) == []
    assert grade_proofs([RIGHT, (statement, "fun h5 h6 => h6"), (statement, "fun h1 => h1"), (statement, "(")]) == [
        ("correct", "fun h1 h2 => h1", ""),
        ("correct", "fun h1 h2 => h2", ""),
        ("wrong", "fun h1 => h1", ""),
        ("unparsed", None, ""),
    ]
    problem = Problem("proofs", "x", statement, "proofs", (statement,))
    assert grader_of("proofs")(problem, RIGHT[1])[0] == "correct"


def test_distinct_proofs_by_hand():
    found = Found({"a": {0: "p", 1: "q", 2: "p"}, "b": {5: "r"}})
    assert distinct_counts(found, ["a", "b", "c"]).tolist() == [2, 1, 0]
    theorems = [Theorem("", ("p", "s", "q", "t")), Theorem("", ("s", "t")), Theorem("", ("p", "q"))]
    assert enumerated_share(found, ["a", "b", "c"], theorems).tolist() == [0.5, 0.0, 0.0]  # 2 of 4, 0 of 2, 0 of 2


def test_ranks_and_uplift_by_hand():
    # log-probabilities -3 -1 -2 -1: ranks 4 1 3 2
    assert rank_correct([-3.0, -1.0, -2.0, -1.0], [0, 2, 3]) == {0: 4, 2: 3, 3: 2}
    rises = [(1, True), (2, True), (2, False), (4, False), (9, True)]
    (first, second, third) = uplift_by_rank(rises, [(1, 2), (3, 8), (10, 20)])
    assert first == (3, pytest.approx(2 / 3)) and second == (1, 0.0)
    assert third[0] == 0 and math.isnan(third[1])


def test_moving_average_by_hand():
    assert moving_average([10.0, 20.0, 20.0]) == pytest.approx([10.0, 10.5, 10.975])


def test_examples_are_those_that_moved_most_each_theorem_once():
    start = {("a", "p"): -1.0, ("a", "q"): -1.0, ("b", "p"): -1.0, ("c", "p"): -1.0}
    trained = {("a", "p"): -9.0, ("a", "q"): -0.1, ("b", "p"): -0.2, ("c", "p"): -2.0}
    assert pick_examples(start, trained, 3) == [("a", "p"), ("c", "p"), ("b", "p")]


def test_unique_proofs_are_counted_from_verls_dumps(tmp_path):
    rows = [
        ("u1_0_0", "A → A", "fun h1 => h1", 1.0),
        ("u1_1_0", "A → A", "fun h2 => h2", 1.0),  # the same, bound names aside
        ("u2_0_0", "B → B", "fun h1 => h1", 1.0),
        ("u2_1_0", "B → B", "h1", 0.0),
        ("padabc_0_0", "C → C", "fun h1 => h1", 1.0),  # fills the batch up
    ]
    lines = [
        json.dumps({"uid": uid, "input": gts, "output": output, "gts": gts, "score": score, "acc": score, "step": 7})
        for uid, gts, output, score in rows
    ]
    (tmp_path / "7.jsonl").write_text("\n".join(lines) + "\n")
    assert unique_proofs_per_step(tmp_path) == {7: 2}
