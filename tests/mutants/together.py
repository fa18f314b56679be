#!/usr/bin/env python3
"""All mutants of a core in one build.

cargo-mutants builds once a mutant. This asks it for its mutants only, puts all of them
into one copy of the tree, function by function,

    fn f() { match mutant() { 17 => { changed }, 18 => { changed }, _ => { as it was } } }

builds that once, and runs the tests once a mutant, which the environment variable
RISITI_MUTANT names. What this can't build together (constants, `const fn`, `impl
Trait`) is left apart, or with `--apart 1` to cargo-mutants itself.

    together.py CORE PACKAGE "files" "tests; tests" TREE OUT [--sample k/n] [--timeout s]
                [--apart 1] [--again 1]

"tests" are what `cargo test` is given, `--lib -- codec::`; more than one such, apart by
`;`, and of another package with `-p package` before it: a core may be judged there.

TREE is a copy that may be changed; OUT gets CORE.tsv: file, mutation, outcome
(noticed, timeout, missed, unviable: does not compile, apart, untried: interrupted).
`--again 1` tries only what was missed or untried last time.
"""
import collections, json, os, re, signal, subprocess, sys, time


def main():
    core, package, files, tests, tree, out = sys.argv[1:7]
    options = dict(zip(sys.argv[7::2], sys.argv[8::2]))
    k, n = map(int, options.get("--sample", "0/1").split("/"))
    os.chdir(tree)
    listed = ["cargo", "mutants", "--workspace", "--list", "--json", "--diff"]
    for pattern in files.split():
        listed += ["-f", pattern]
    mutants = json.loads(subprocess.run(listed, check=True, capture_output=True).stdout)
    mutants = [dict(m, id=i + 1) for i, m in enumerate(mutants) if i % n == k]
    originals = {m["file"]: open(m["file"]).read() for m in mutants}
    lib = lib_of(package)
    originals.setdefault(lib, open(lib).read())
    outcomes = {m["id"]: "apart" for m in mutants if not can_be_together(m, originals)}
    table = os.path.join(out, core + ".tsv")
    if options.get("--again", "0") == "1":
        before = dict(line.rstrip("\n").split("\t")[1:] for line in open(table))
        for m in mutants:
            if before.get(m["name"], "missed") not in ("missed", "untried"):
                outcomes[m["id"]] = before[m["name"]]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))
    try:
        binaries = build(mutants, outcomes, originals, lib, package, tests)
    finally:
        for path, text in originals.items():
            open(path, "w").write(text)
    limit_s = float(options.get("--timeout", 0)) or None
    taken_s = {}
    for binary in binaries:
        begun = time.monotonic()
        assert run([binary], 0, 600) == "missed", f"{binary[0]} fails without a mutant"
        taken_s[binary] = time.monotonic() - begun
    binaries.sort(key=taken_s.get)
    limit_s = limit_s or max(10.0, 5 * max(taken_s.values()))
    if max(taken_s.values()) > limit_s / 2:
        sys.exit(f"the tests take {max(taken_s.values()):.0f} s without a mutant: a limit of {limit_s:.0f} s tells nothing")
    whole_s = sum(taken_s.values())
    print(f"{core}: {len(mutants)} mutants, a run takes {whole_s:.1f} s at most", flush=True)
    try:
        for m in mutants:
            if m["id"] not in outcomes:
                outcomes[m["id"]] = run(binaries, m["id"], limit_s)
                if outcomes[m["id"]] in ("missed", "timeout"):
                    print(f"{outcomes[m['id']]:8} {m['name']}", flush=True)
        left = [m for m in mutants if outcomes[m["id"]] == "apart"]
        if left and options.get("--apart", "0") == "1":
            alone(left, outcomes, os.path.join(out, core + "-apart"), package, tests, limit_s)
    finally:
        with open(table, "w") as rows:
            for m in mutants:
                print(m["file"], m["name"], outcomes.get(m["id"], "untried"), sep="\t", file=rows)
    print(core, dict(collections.Counter(outcomes.values())))


def lib_of(package):
    metadata = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"],
        check=True, capture_output=True,
    ).stdout
    found = next(p for p in json.loads(metadata)["packages"] if p["name"] == package)
    path = next(t["src_path"] for t in found["targets"] if "lib" in t["kind"])
    return os.path.relpath(path)


def lines_of(m):
    span = m["function"]["span"]
    return span["start"]["line"] - 1, span["end"]["line"]


def signature(lines):
    """Where the body begins: (line, column) of its brace; and the text before it."""
    depth, named, text = 0, False, ""
    for at, line in enumerate(lines):
        if not named:
            found = re.search(r"\bfn\s+\w+", line.split("//")[0])
            if not found:
                continue
            named = True
        for column, c in enumerate(line):
            depth += (c in "([") - (c in ")]")
            if c == "{" and depth == 0:
                return at, column, text
            text += c
    return None


def can_be_together(m, originals):
    if not m["function"]:
        return False
    begin, end = lines_of(m)
    head = signature(originals[m["file"]].split("\n")[begin:end])
    return bool(head) and "-> impl" not in head[2] and "const fn" not in head[2]


def mutated(text, diff):
    """The lines of `text` after `diff`, and by how many they are more."""
    lines, result, at = text.split("\n"), [], 0
    for line in diff.split("\n")[2:]:
        hunk = re.match(r"@@ -(\d+)", line)
        if hunk:
            to = max(int(hunk[1]) - 1, 0)
            result += lines[at:to]
            at = to
        elif line.startswith("+"):
            result.append(line[1:])
        elif line.startswith("-"):
            at += 1
        elif line.startswith(" "):
            result.append(lines[at])
            at += 1
    result += lines[at:]
    return result, len(result) - len(lines)


def together(path, text, mutants, dead):
    """The file with every mutant that is not `dead` in it."""
    functions = collections.defaultdict(list)
    for m in mutants:
        if m["file"] == path and m["id"] not in dead:
            functions[lines_of(m)].append(m)
    # What lies in another function belongs to that.
    spans = sorted(functions, key=lambda s: (s[0], -s[1]))
    outer = []
    for span in spans:
        if outer and span[1] <= outer[-1][1]:
            functions[outer[-1]] += functions.pop(span)
        else:
            outer.append(span)
    lines, result, at = text.split("\n"), [], 0
    for begin, end in outer:
        result += lines[at:begin]
        own = lines[begin:end]
        line, column, _ = signature(own)
        result += own[:line] + [own[line][:column] + "{ match crate::risiti_mutant() {"]
        for m in functions[(begin, end)]:
            changed, longer = mutated(text, m["diff"])
            changed = changed[begin : end + longer]
            l, c, _ = signature(changed)
            body = "\n".join([changed[l][c:]] + changed[l + 1 :])
            result.append(f"/*MUTANT {m['id']}*/ {m['id']} => {{")
            result += body.split("\n") + ["}"]
        result.append("/*MUTANT 0*/ _ => {")
        result += [own[line][column:]] + own[line + 1 :] + ["} } }"]
        at = end
    return "\n".join(result + lines[at:])


def alone(left, outcomes, out, package, tests, limit_s):
    """Those that need a build each; asked are the tests of their own package."""
    tests = next((g for g in tests.split(";") if not g.strip().startswith("-p ")), "")
    names = "|".join(re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", m["name"]) for m in left)
    os.makedirs(out, exist_ok=True)
    command = ["cargo", "mutants", "--workspace", "--in-place", "-F", f"^({names})$", "-o", out]
    # Not every kind of mutant heeds -F: at least no other file's are tried.
    for file in sorted({m["file"] for m in left}):
        command += ["-f", file]
    command += ["--test-package", package, "--baseline", "skip", "--timeout", str(limit_s)]
    subprocess.run([*command, "--", *tests.split()], stdout=subprocess.DEVNULL)
    for outcome, word in [("caught", "noticed"), ("missed", "missed"), ("timeout", "timeout"), ("unviable", "unviable")]:
        for name in open(os.path.join(out, "mutants.out", outcome + ".txt")).read().splitlines():
            for m in left:
                if m["name"] == name:
                    outcomes[m["id"]] = word
                    if word in ("missed", "timeout"):
                        print(f"{word:8} {name}", flush=True)


CHOICE = """
#[doc(hidden)]
#[allow(missing_docs)]
pub fn risiti_mutant() -> u32 {
    extern crate std;
    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let named = std::env::var("RISITI_MUTANT").ok();
        named.and_then(|id| id.parse().ok()).unwrap_or(0)
    })
}
"""


def groups_of(tests, package):
    """`tests` as (package, what cargo is to build, what the test program is to run)."""
    for group in tests.split(";"):
        targets, _, filters = group.partition(" -- ")
        named = re.match(r"\s*-p (\S+)(.*)", targets)
        if named:
            yield named[1], named[2].split(), filters.split()
        else:
            yield package, targets.split(), filters.split()


def build(mutants, outcomes, originals, lib, package, tests):
    while True:
        written = {}
        for path, text in originals.items():
            new = together(path, text, mutants, outcomes)
            written[path] = (new + CHOICE if path == lib else new).split("\n")
            open(path, "w").write("\n".join(written[path]))
        binaries, dead, errors = [], set(), []
        for asked, targets, filters in groups_of(tests, package):
            command = ["cargo", "test", "-p", asked, "--no-run", "--message-format=json", *targets]
            messages = subprocess.run(command, capture_output=True, text=True)
            for line in messages.stdout.splitlines():
                message = json.loads(line)
                if message["reason"] == "compiler-artifact" and message.get("executable"):
                    if asked in message["package_id"] and message["profile"]["test"]:
                        cwd = os.path.dirname(message["manifest_path"])
                        binaries.append((message["executable"], cwd, tuple(filters)))
                if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
                    errors.append(message["message"]["rendered"])
                    for span in message["message"]["spans"]:
                        inside = mutant_at(written.get(os.path.relpath(span["file_name"]), []), span["line_start"])
                        if inside:
                            dead.add(inside)
            if messages.returncode != 0:
                break
        else:
            return binaries
        dead -= set(outcomes)
        if not dead:
            sys.exit("does not build:\n" + "\n".join(errors[:5]) + messages.stderr[-2000:])
        print(f"{len(dead)} do not compile", flush=True)
        outcomes.update(dict.fromkeys(dead, "unviable"))


def mutant_at(lines, number):
    for line in reversed(lines[:number]):
        found = re.match(r"/\*MUTANT (\d+)\*/", line)
        if found:
            return int(found[1])
        if line == "} } }":
            return None
    return None


def run(binaries, mutant, limit_s):
    for binary, cwd, filters in binaries:
        environment = dict(os.environ, RISITI_MUTANT=str(mutant), PROPTEST_DISABLE_FAILURE_PERSISTENCE="1")
        child = subprocess.Popen(
            [binary, "-q", *filters], cwd=cwd, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            if child.wait(limit_s) != 0:
                return "noticed"
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return "timeout"
    return "missed"


main()
