"""Selection of training rows: what is dropped and counted; the files verl reads; the script."""

import json
import sys
from pathlib import Path

import pytest
from tiny_math import DATA, NO_DATA, write_model

from verl_fgrpo.evaluation.prompts import BOXED
from verl_fgrpo.runs.deepscaler import Counts, _equal, _parsable, prepare, select, verl_row


def words(text):
    return len(text.split())


def run(rows, max_tokens=10):
    return select(rows, words, lambda text: words(text) - 1, max_tokens, _equal, _parsable, progress=False)


def test_every_step_drops_what_it_says():
    rows = [
        {"problem": "one half", "answer": r"\frac{1}{2}"},
        {"problem": "one  half ", "answer": "0.5"},  # the same problem, another spelling of the same answer
        {"problem": "conflict", "answer": "1"},
        {"problem": "conflict", "answer": "2"},
        {"problem": "conflict", "answer": "1"},
        {"problem": "no answer", "answer": ""},
        {"problem": "", "answer": "3"},
        {"problem": "w " * 11, "answer": "4"},  # 11 tokens
        {"problem": "w " * 10, "answer": "5"},
        {"problem": "no gold that parses", "answer": r"\text{}"},
    ]
    kept, counts = run(rows)
    assert kept == [("one half", r"\frac{1}{2}"), (("w " * 10).strip(), "5"), ("no gold that parses", r"\text{}")]
    # with the limit on the bare problem the 11 words fit too; "one half" has two rows
    other = {"fitting_bare": 4, "rows_fitting": 4, "rows_fitting_bare": 5}
    assert counts == Counts(read=10, with_answer=8, consistent=5, unique=4, fitting=3, unparsable_gold=1, **other)
    text = counts.describe()
    assert "3 rows of problems with conflicting answers dropped" in text and "the paper has 39,202, so -39,199" in text


def test_numbers_as_answers_become_text():
    assert run([{"problem": "p", "answer": 142.0}])[0] == [("p", "142")]
    assert run([{"problem": "p", "answer": 0}])[0] == [("p", "0")]


# arXiv 2602.06717, Table 9: the system prompt of the math problems
@pytest.mark.parametrize("preset", ["qwen2.5", "qwen3", "llama3"])
def test_rows_hold_the_papers_prompt(preset):
    row = verl_row("deepscaler", 7, "1 + 1?", ["2"], preset, "train")
    assert row["prompt"] == [{"role": "system", "content": BOXED}, {"role": "user", "content": "1 + 1?"}]
    assert BOXED == "Please reason step by step, and put your final answer within \\boxed{}."
    assert row["reward_model"] == {"style": "rule", "ground_truth": "2"}
    assert row["data_source"] == "deepscaler" and row["extra_info"]["index"] == 7


def test_verl_reads_the_files_and_the_counts_are_those_of_its_own_tokens(tmp_path):
    """The limit is exact: at one token less than the longest prompt, that one goes."""
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer

    model = write_model(tmp_path / "model")
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps({"problem": "x" * n, "answer": "1"}) + "\n" for n in (5, 9, 20)))
    tokenizer = AutoTokenizer.from_pretrained(model)
    longest = [{"role": "system", "content": BOXED}, {"role": "user", "content": "x" * 20}]
    tokens = len(tokenizer.apply_chat_template(longest, add_generation_prompt=True, tokenize=True)["input_ids"])
    for limit, left in ((tokens, 3), (tokens - 1, 2)):
        counts = prepare(tmp_path / "out", str(model), "qwen2.5", source, max_tokens=limit, progress=False)
        assert counts.fitting == left
        rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
        assert [len(row["prompt"][1]["content"]) for row in rows] == [5, 9, 20][:left]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["fitting"] == 2 and manifest["provenance"]["versions"]["math-verify"]
    before = (tmp_path / "out" / "train.parquet").read_bytes()
    with pytest.raises(ValueError, match="holds no problem"):  # before a training file of other rows is written
        validation = tmp_path / "empty.jsonl"
        validation.write_text("")
        prepare(tmp_path / "out", str(model), "qwen3", source, [validation], progress=False)
    assert (tmp_path / "out" / "train.parquet").read_bytes() == before


def test_the_script_says_what_is_wrong(tmp_path):
    import subprocess

    script = Path(__file__).resolve().parents[2] / "scripts" / "prepare_data.py"
    model = write_model(tmp_path / "model")
    source = tmp_path / "source.json"
    source.write_text(json.dumps([{"problem": "p", "answer": "1"}, {"problem": "p", "answer": "2"}]))
    command = [sys.executable, script, "train", "--out", tmp_path / "out", "--model", model, "--preset", "qwen2.5"]
    failed = subprocess.run([*command, "--source", source], capture_output=True, text=True, timeout=1200)
    assert failed.returncode != 0 and "no problem is left" in failed.stderr and "2 rows of problems" in failed.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not DATA.exists(), reason=NO_DATA)
def test_real_math_rows_in_verls_schema(tmp_path):
    from verl_fgrpo.core.rows import iter_rows

    kept, counts = run(list(iter_rows(DATA))[:300], max_tokens=10_000)
    assert counts.read == 300 and counts.fitting == len(kept) >= 295
    assert counts.unparsable_gold <= 3
    assert kept[1][1] == "98"
