#!/usr/bin/env python3
"""Says which mutants no test noticed and nothing explains; keeps the table.

    judge.py CORE CORE.tsv COMMIT RECORD

Prints one line `MUTANTS ...` and, if there are unexplained ones, fails. RECORD=1 puts
the rows of the core into RESULTS.md.
"""
import collections, os, re, sys

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = """# What the mutation check tried

Written by `RISITI_MUTANTS_RECORD=1 make mutants`. Each mutant is one small fault in the
code; a test has to notice it. What none noticed stands with its reason in
[survivors.txt](survivors.txt). "By time": the tests hung or looped, which fails them
too. "Apart": needs a build of its own, and was left out. A commit with "quick" behind it
stands for the quick tests of the crate alone (the fourth column in
`tests/mutants.sh`): much of what those leave is noticed by the others, by
`tests/simulation` and by the crash images, which was not tried.

| core | file | tried | noticed | by time | not noticed, explained | not explained | do not compile | apart | commit |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""

TAIL = """

## Not noticed, and not explained

Each is either a test that is missing or a reason that is.

"""


def main():
    core, table, commit, record = sys.argv[1:5]
    explained = open(os.path.join(HERE, "survivors.txt")).read().splitlines()
    rows = collections.defaultdict(collections.Counter)
    bad = []
    for line in open(table):
        file, name, outcome = line.rstrip("\n").split("\t")
        # Without line and column, which change with every edit.
        plain = re.sub(r":\d+:\d+: ", ": ", name) + " | "
        if outcome == "missed" and any(reason.startswith(plain) for reason in explained):
            outcome = "explained"
        if outcome == "missed":
            bad.append(name)
            print("not noticed by any test, and not explained:", name)
        rows[file][outcome] += 1
    total = sum(rows.values(), collections.Counter())
    print(
        f"MUTANTS {core}: {total['noticed']} noticed, {total['timeout']} by their time,"
        f" {total['explained'] + len(bad)} not noticed ({len(bad)} of them unexplained),"
        f" {total['unviable']} do not compile, {total['apart']} left apart"
    )
    if record == "1":
        keep(core, rows, commit, bad)
    sys.exit(len(bad) > 0)


def keep(core, rows, commit, bad):
    path = os.path.join(HERE, "RESULTS.md")
    old = open(path).read().splitlines() if os.path.exists(path) else []
    kept = [r for r in old if r.startswith("| ") and not r.startswith((f"| {core} |", "| core", "| ---"))]
    for file, c in rows.items():
        tried = sum(c.values()) - c["unviable"] - c["apart"] - c["untried"]
        figures = [tried, c["noticed"], c["timeout"], c["explained"], c["missed"], c["unviable"], c["apart"]]
        kept.append(f"| {core} | `{file}` | " + " | ".join(map(str, figures)) + f" | {commit} |")
    still = [r for r in old if r.startswith("- ") and not r.startswith(f"- {core}: ")]
    still += [f"- {core}: `{name}`" for name in bad]
    open(path, "w").write(HEAD + "\n".join(sorted(kept)) + TAIL + "\n".join(sorted(still)) + "\n")


main()
