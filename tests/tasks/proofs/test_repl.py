"""The REPL pool, with a fake REPL and with the packaged Lean behind the REPL's protocol."""

import asyncio
import sys
import textwrap
from pathlib import Path

import pandas as pd
import psutil
import pytest

from verl_fgrpo.evaluation.problems import load_problems
from verl_fgrpo.tasks.proofs import mathlib
from verl_fgrpo.tasks.proofs.lean import OPTIONS, PRELUDE, find_lean
from verl_fgrpo.tasks.proofs.mathlib import PROMPT, convert, proof_in, settings_from
from verl_fgrpo.tasks.proofs.repl import ReplError, ReplPool, ReplSettings, toolchain_report

TALK = """
import json, os, re, sys, time
texts = []
def requests():
    lines = []
    for line in sys.stdin:
        if line.strip():
            lines.append(line)
        elif lines:
            yield json.loads("".join(lines))
            lines = []
for request in requests():
    answer = respond(request)
    print(json.dumps(answer, indent=1) + "\\n", flush=True)
"""
#: obeys the words of the proof; `right` is proved without axioms
FAKE = """
def respond(request):
    text = request["cmd"]
    texts.append(text)
    env = len(texts)
    if text.startswith("#print axioms "):
        name = text.split()[-1]
        before = texts[request["env"] - 1]
        assert f"theorem {name} " in before
        axioms = re.search(r"uses\\((.*)\\)", before)
        data = f"'{name}' depends on axioms: [{axioms[1]}]" if axioms else f"'{name}' does not depend on any axioms"
        return {"messages": [{"severity": "info", "data": data}], "env": env}
    if "hang" in text:
        time.sleep(60)
    if "die" in text:
        os._exit(1)
    if "flood" in text:
        print("x" * 3_000_000)
    if "wrong" in text:
        return {"messages": [{"severity": "error", "data": "no"}], "env": env}
    if "hole" in text:
        return {"sorries": [{"goal": "x"}], "messages": [], "env": env}
    if "warned" in text:
        return {"messages": [{"severity": "warning", "data": "declaration uses 'sorry'"}], "env": env}
    if "refused" in text:
        return {"message": "unknown environment"}
    return {"env": env}
"""
STATEMENT = "theorem any (a : Nat) : a = a := by"


def write_repl(folder: Path, respond: str) -> str:
    path = folder / "repl.py"
    path.write_text(textwrap.dedent(respond) + TALK)
    return f"{sys.executable} {path}"


def settings(folder: Path, command: str, **changes) -> ReplSettings:
    return ReplSettings(command, folder, "header", **{"workers": 2, "seconds": 30.0, "memory_gb": 4.0, **changes})


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ("right", "proved"),
        ("uses(propext, Classical.choice,\\n Quot.sound)".replace("\\n", ""), "proved"),
        ("uses(propext, myAxiom)", "wrong"),
        ("uses(sorryAx)", "error"),
        ("wrong", "wrong"),
        ("hole", "wrong"),
        ("warned", "wrong"),
        ("refused", "wrong"),
        ("die", "timeout"),
        ("flood", "timeout"),
        ("sorry", "error"),
        ("right\ntheorem b : True := trivial", "error"),
        ("right\n#eval 1", "error"),
        ("set_option maxHeartbeats 0 in right", "error"),
        ("@[simp] right", "error"),
        ("native_decide", "error"),
        ("exact (by_elab do return q(1))", "error"),
        ("right\nrun_meta write", "error"),
        ("right\ndsimproc f (_) := write", "error"),
        ("right\nnotation3 x", "error"),
        ("simp (config := unsafeIO f)", "error"),
        ("have relabel := right\n  right", "proved"),  # a name with such a word in it is let in
    ],
)
def test_verdicts_of_a_fake(tmp_path, proof, said):
    with ReplPool(settings(tmp_path, write_repl(tmp_path, FAKE), workers=1)) as pool:
        assert pool.check([(STATEMENT, proof), (STATEMENT, "right")]) == [said, "proved"]


def test_a_hanging_proof_costs_its_process_only(tmp_path):
    with ReplPool(settings(tmp_path, write_repl(tmp_path, FAKE), seconds=2.0)) as pool:
        verdicts = pool.check([(STATEMENT, "hang")] + [(STATEMENT, "right")] * 6)
    assert verdicts[0] == "timeout"
    assert set(verdicts[1:]) <= {"proved", "timeout"} and "proved" in verdicts  # a busy machine may time out more


def test_processes_are_renewed_and_end_with_the_pool(tmp_path, monkeypatch):
    monkeypatch.setattr("verl_fgrpo.tasks.proofs.repl.RENEW_AFTER", 2)
    started = tmp_path / "started"
    command = write_repl(tmp_path, f"open({str(started)!r}, 'a').write('x')\n{textwrap.dedent(FAKE)}".replace(
        "open(", "import os\nopen(", 1))  # fmt: skip
    before = set(psutil.Process().children(recursive=True))
    with ReplPool(settings(tmp_path, command, workers=1)) as pool:
        assert pool.check([(STATEMENT, "right")] * 5) == ["proved"] * 5
    assert started.read_text() == "xxx"  # 2 + 2 + 1 proofs
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_repl_that_does_not_start_is_named(tmp_path):
    for command, message in (("/nowhere/repl", "no program"), ("/bin/false", "the process ended|understood")):
        with ReplPool(settings(tmp_path, command)) as pool, pytest.raises(ReplError, match=message):
            pool.check([(STATEMENT, "right")])
        works, line = toolchain_report(settings(tmp_path, command), (STATEMENT, "right"), (STATEMENT, "wrong"))
        assert not works and "does not work" in line
    works, line = toolchain_report(
        settings(tmp_path, write_repl(tmp_path, FAKE)), (STATEMENT, "right"), (STATEMENT, "wrong")
    )
    assert works and "proved, wrong, error" in line


def test_the_packaged_lean_behind_the_protocol(kernel, tmp_path):
    """Each request is checked by the kernel on everything its environment holds; no tactics there, so terms."""
    lean = find_lean()
    command = lean.command([*OPTIONS, "x.lean"], 60, 1 << 22)
    adapter = f"""
    import subprocess
    prelude = {PRELUDE!r}
    def respond(request):
        before = texts[request["env"]] if "env" in request else ""
        whole = before + request["cmd"] + "\\n"
        texts.append(whole)
        open("x.lean", "w").write(whole)
        first = before.count("\\n") + 1
        done = subprocess.run({command!r}, env={lean.environment()!r}, capture_output=True, text=True)
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        said = [{{"severity": "info" if m["severity"] == "information" else m["severity"], "data": m["data"]}}
                for m in messages if m["pos"]["line"] >= first]
        return {{"messages": said, "env": len(texts) - 1}}
    """
    with ReplPool(
        ReplSettings(write_repl(tmp_path, adapter), tmp_path, PRELUDE, workers=1, seconds=60, memory_gb=8)
    ) as pool:
        head = "theorem x {A B : Prop} : And A B → And B A :="
        proofs = ["fun h => ⟨h.right, h.left⟩", "fun h => ⟨h.left, h.right⟩", "fun h => lcProof", "fun h =>"]
        assert pool.check([(head, proof) for proof in proofs]) == ["proved", "wrong", "wrong", "wrong"]


@pytest.mark.parametrize(
    ("response", "proof"),
    [("  simp\n```", "  simp\n"), ("  simp\n```\n", "  simp\n"), ("  simp", None), ("  simp\n```\nmore", None)],
)
def test_a_proof_ends_with_the_fence(response, proof):
    assert proof_in(response) == proof


def test_reward_and_settings(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="LEAN_REPL is not set"):
        settings_from({})
    monkeypatch.setenv("LEAN_REPL", write_repl(tmp_path, FAKE))
    monkeypatch.setenv("LEAN_PROJECT", str(tmp_path))
    monkeypatch.setenv("LEAN_WORKERS", "2")
    mathlib._pool.cache_clear()

    async def main():
        answers = ["  right\n```", "  wrong\n```", "  right", "  right\n```\nDone."]
        return [row["acc"] for row in await asyncio.gather(*[mathlib.compute_score("", a, STATEMENT) for a in answers])]

    try:
        assert asyncio.run(main()) == [True, False, False, False]
    finally:
        mathlib._pool().close()
        mathlib._pool.cache_clear()


def test_the_authors_columns_become_verls_and_the_evaluations(tmp_path):
    row = {"theorem_full_name": "t1", "theorem_statement": STATEMENT + "\n", "informal_statement": "/-- x -/\n"}
    pd.DataFrame([row]).to_parquet(tmp_path / "source.parquet")
    assert convert(tmp_path / "source.parquet", tmp_path / "out.v2", "train") == 1
    (written,) = pd.read_parquet(tmp_path / "out.v2.parquet").to_dict("records")
    prompt = written["prompt"][0]["content"]
    assert prompt.startswith("Complete the following Lean 4 code:\n\n```lean4\nimport Mathlib\n")
    assert prompt.endswith("/-- x -/\n" + STATEMENT + "\n") and "{" not in PROMPT.replace("{header}", "").replace(
        "{informal}", "").replace("{statement}", "")  # fmt: skip
    assert written["reward_model"]["ground_truth"] == STATEMENT + "\n"
    (problem,) = load_problems([tmp_path / "out.v2.jsonl"])
    assert (problem.kind, problem.prompt, problem.answers) == ("mathlib", prompt, (STATEMENT,))
    pd.DataFrame([{"theorem_full_name": "t1"}]).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match="no column informal_statement"):
        convert(tmp_path / "bad.parquet", tmp_path / "bad", "train")
    for name in ("none.parquet", "source.txt"):
        (tmp_path / name).write_bytes(b"PAR1")
        with pytest.raises(ValueError, match=name):
            convert(tmp_path / name, tmp_path / "bad", "train")
