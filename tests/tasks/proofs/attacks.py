"""Texts that try to be accepted without a proof, or to spoil other items. Each is (kind, statement, proof)."""

FALSE = "A → B"  # provable by nothing


def _term_cheats():
    cheats = [
        "lcProof",
        "fun h1 => lcProof",
        "sorry",
        "fun h1 => sorry",
        "by sorry",
        "by exact lcProof",
        "by trivial",
        "by",
        "fun h1 => (lcProof : B)",
        "sorryAx B",
        "@lcProof B",
        "lcAny",
        "fun h1 => nomatch h1",
        "fun h1 => h1 ▸ h1",
        "let h1 : B := lcProof; fun h2 => h1",
        "have h1 : B := lcProof; fun h2 => h1",
        "fun h1 => h1 |> lcProof",
        "unsafeCast True.intro",
        "fun h1 => False.rec h1",
        "fun h1 => Or.rec h1",
        "show A → B from lcProof",
        "?x",
        "_",
        "fun h1 => _",
        "fun h1 => ‹B›",
        "fun h1 => .intro",
        "fun h1 => h1 : B",
        "fun | h1 => h1",
        "⟨ ⟩",
        "( )",
        "Or.inl",
        "Or.inr True.intro",
        "fun h1 => True.intro",
        "fun h1 h2 h3 => h3",
        "h1",
        "fun => h1",
        "fun h1 =>",
        "fun h1 => h1 .elim",
        "fun h1 => h1 .1",
        "⟨ fun h1 => h1 ⟩",
        "fun h1 => ⟨ h1 , h1 ⟩",
        "fun h1 => ( fun h2 => h2 h2 ) ( fun h2 => h2 h2 )",
    ]
    return [("term", FALSE, proof) for proof in cheats]


def _closings():
    texts = [
        "fun h1 => h1\n#print axioms x",
        "lcProof\n\ntheorem x : True := True.intro",
        "lcProof\nend",
        ")",
        "⟩",
        "( ⟩",
        "fun h1 => h1 ) (",
        "fun h1 => h1\r#exit",
        "fun h1 => h1\u2028#exit",
        "fun h1 => h1\x0b#exit",
        "fun h1 => h1 -- ",
        "fun h1 => h1 /-",
        "-/ fun h1 => h1",
        "fun h1 => h1 /- x -/",
        "fun h1 => h1\\",
        "h1 where h1 := lcProof",
        "h1 termination_by x",
        "lcProof in",
        "fun h1 => h1;",
        "fun h1 => h1\n\n\n\n",
    ]
    return [("closing", FALSE, proof) for proof in texts]


def _commands():
    texts = [
        "fun h1 => h1\n#exit",
        "x\nvariable (h : False)\ninclude h",
        "x\naxiom h1 : False",
        "x\nset_option debug.skipKernelTC true",
        "x\nset_option maxErrors 1",
        "x\nopen Or",
        "x\nnamespace Q",
        "x\nsection",
        'x\nmacro "fun" : term => `(lcProof)',
        'x\nnotation "And" => lcProof',
        'x\ninfixr:25 " → " => Or',
        "x\nlocal instance : True := True.intro",
        "x\nattribute [simp] Or.elim",
        "x\n@[implemented_by lcProof] def y : True := True.intro",
        "x\nuniverse u",
        "x\nimport Lean",
        "x\nprelude",
        'x\nelab "h1" : term => lcProof',
        "x\n#eval 1",
        "x\n#print axioms lcProof",
        "x\ndef A : Prop := True",
        "x\ninductive B : Prop | i",
        "x\nset_option autoImplicit true",
    ]
    return [("command", FALSE, text) for text in texts] + [("command", text, "fun h1 => h1") for text in texts[:6]]


def _characters():
    texts = [
        "\ud800",
        "fun h1 => \udfff",
        "fun h1 => h1\x00",
        "\ufefffun h1 => h1",
        "fun\u00a0h1 => h1",
        "fun h\u0661 => h\u0661",
        "ｆｕｎ h1 => h1",
        "fun h1 ⇒ h1",
        "λ h1 => h1",
        "fun h1 ↦ h1",
        "fun h1 => h1\u202e",
        "fun h1 => \u200bh1",
        "",
        " ",
        "\n",
        "\x1b[2J",
        "fun h1 => h1\u0301",
        "fun «h1» => «h1»",
        "«lcProof»",
        '"fun"',
        "'fun'",
        "`h1",
        "h1\t",
        "fun h1 => ⟨\u200d⟩",
    ]
    return [("character", FALSE, text) for text in texts] + [("character", text, "fun h1 => h1") for text in texts[:8]]


def _forgeries():
    line = '{"severity":"information","pos":{"line":21,"column":0},"data":"\'x\' does not depend on any axioms"}'
    texts = [
        line,
        f"fun h1 => h1\n{line}",
        "'t' does not depend on any axioms",
        f'#print "{line}"',
        f'"{line}"',
        "t0123456789abcdef",
        "#print axioms",
        "fun h1 => h1 #print axioms t",
        "proved",
    ]
    return [("forged output", FALSE, text) for text in texts]


def _blow_ups():
    pair = "fun h1 => h1"
    for _ in range(40):
        pair = f"( {pair} )"
    doubled = "h1"
    for _ in range(5):
        doubled = f"⟨ {doubled} , {doubled} ⟩"
    church = "fun h1 h2 => " + "h1 ( " * 60 + "h2" + " )" * 60
    applied = " ".join(["( fun h1 h2 => h1 ( h1 h2 ) )"] * 20)
    arrows = " → ".join(["A"] * 128)
    nested = "( " * 80 + "A" + " → B )" * 80
    texts = [
        "fun h1 => " + pair,
        "fun h1 => " + doubled,
        church,
        applied,
        f"fun h1 => {applied} h1",
        "( " * 128 + ") " * 127 + ")",
        " ".join(["h1"] * 256),
        " ".join(["fun h1 =>"] * 85),
        "fun h1 => h1" + " .1" * 250,
        "fun h1 => h1" + " .elim" * 250,
        " ".join(["Or.inl"] * 256),
        "⟨ " * 128 + "⟩ " * 127 + "⟩",
        "fun h1 => " + "h1 " * 100_000,
        "h1" * 1_000_000,
    ]
    grown = [("blow-up", FALSE, text) for text in texts]
    return grown + [("blow-up", arrows + " → B", "fun h1 => h1"), ("blow-up", nested + " → C", "fun h1 => h1")]


ATTACKS = [*_term_cheats(), *_closings(), *_commands(), *_characters(), *_forgeries(), *_blow_ups()]
