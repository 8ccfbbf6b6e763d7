"""Tasks about small projects that do not work: scripts, makefiles, packages, histories."""

from __future__ import annotations

from agent_rl_envs.terminal.made.draft import HOME, Check, Dice, Draft, prints, untouched

_SCRIPT = """#!/bin/bash
# Prints, for each name of a file with lines `NAME NUMBER`, the sum of its numbers, sorted by name,
# and then a line with the word `total` and the sum of all.
set -u
declare -A sums
total=0
while read -r name number; do
    [ -z "$name" ] && continue
    sums["$name"]=$(( ${sums["$name"]:-0} + number ))
    total=$(( total + number ))
done < "$1"
for name in "${!sums[@]}"; do
    echo "$name ${sums[$name]}"
done | LC_ALL=C sort
echo "total $total"
"""
_BREAKS = (
    ('done < "$1"', "done < $0"),
    ("declare -A sums", "declare -a sums"),
    ("total=$(( total + number ))", "total=$(( number ))"),
    ("total=$(( total + number ))", "total=$(( total + 1 ))"),
    ('[ -z "$name" ] && continue', '[ -n "$name" ] && continue'),
    ('${sums["$name"]:-0} + number', '${sums["$name"]:-0} - number'),
    ("done | LC_ALL=C sort", "done | LC_ALL=C sort -r"),
    ('for name in "${!sums[@]}"', 'for name in "${sums[@]}"'),
    ("while read -r name number", "while read -r number name"),
    ('echo "total $total"\n', ""),
    ("#!/bin/bash", "#!/bin/sh"),
)


def _sums(dice: Dice) -> tuple[str, str]:
    """What the script is given, and what it prints."""
    names = dice.words(dice.number(2, 6))
    pairs = [(dice.one(*names), dice.number(1, 99)) for _ in range(dice.number(3, 14))]
    text = "".join(f"{name} {number}\n{dice.one('', '', chr(10))}" for name, number in pairs)
    totals = {name: sum(number for other, number in pairs if other == name) for name, _ in pairs}
    lines = [f"{name} {totals[name]}" for name in sorted(totals)]
    return text, "\n".join([*lines, f"total {sum(totals.values())}"])


def fix_script(dice: Dice) -> Draft:
    """A bash script with faults."""
    name = f"{dice.words(1)[0]}.sh"
    broken = _SCRIPT
    for right, wrong in dice.some(_BREAKS, dice.number(1, 3)):
        broken = broken.replace(right, wrong)
    example, said = _sums(dice)
    files = {name: broken, "example.txt": example, "example.out": f"{said}\n"}
    checks: list[Check] = []
    for number in range(3):
        text, output = _sums(dice)
        path = f"/tmp/.hidden-{number}.txt"
        checks.append(prints(f"hidden example {number + 1}", [f"./{name}", path], output, files={path: text}))
    return Draft(
        f"{HOME}/{name} should do what the comment at its top says; it does not. Mend it. `./{name} example.txt` must "
        "print what example.out has; other files are tried as well. It must stay a script that can be run like that.",
        [*checks, *untouched(files, "example.txt", "example.out")],
        f"cat > {name} <<'SCRIPT'\n{_SCRIPT}SCRIPT\nchmod 755 {name}\n",
        files,
        f"chmod {dice.one('755', '644')} {name}\n",
    )


def fix_makefile(dice: Dice) -> Draft:
    """A makefile that builds too little, or not again."""
    parts = dice.words(dice.number(3, 5))
    out = f"{dice.words(1)[0]}.txt"
    sources = {f"src/{part}.in": dice.text(dice.number(1, 4)) for part in parts}
    objects = " ".join(f"build/{part}.up" for part in parts)
    right = (
        f"all: dist/{out}\n\n"
        f"dist/{out}: {objects}\n\tmkdir -p dist\n\tcat $^ > $@\n\n"
        "build/%.up: src/%.in\n\tmkdir -p build\n\ttr a-z A-Z < $< > $@\n\n"
        "clean:\n\trm -rf build dist\n\n.PHONY: all clean\n"
    )
    last = f" build/{parts[-1]}.up"
    breaks = (
        ("\tcat $^ > $@", "        cat $^ > $@"),
        ("build/%.up: src/%.in", "build/%.up:"),
        (last + "\n", "\n"),
        ("cat $^ > $@", "cat $< > $@"),
        ("\tmkdir -p build\n", ""),
        ("tr a-z A-Z < $<", "tr A-Z a-z < $<"),
        (f"all: dist/{out}", "all:"),
    )
    broken = right
    for good, bad in dice.some(breaks, dice.number(1, 3)):
        broken = broken.replace(good, bad)
    built = "".join(text.upper() for text in sources.values())
    fresh = {**sources, f"src/{parts[0]}.in": "something else\n"}
    rebuilt = "".join(text.upper() for text in fresh.values())
    shell = ["/bin/bash", "--norc", "-c"]
    again = "sleep 1.1; make -s >&2 && sleep 1.1; echo something else > src/{0}.in; make -s >&2 && cat dist/{1}"
    return Draft(
        f"`make` in {HOME} should write dist/{out}: the files {', '.join(sources)} in that order, in capital letters, "
        "each by way of a file build/NAME.up. `make clean` removes build and dist, and after a change of a source "
        "`make` builds again what depends on it. Mend the Makefile; the sources stay as they are.",
        [
            *untouched(sources),
            prints("builds from nothing", [*shell, f"make -s clean >&2; make -s >&2 && cat dist/{out}"], built),
            prints("goes by build/NAME.up", [*shell, f"cat {objects}"], built),
            prints("builds again", [*shell, again.format(parts[0], out)], rebuilt),
            prints("cleans up", [*shell, "make -s clean >&2; ls -d build dist 2>/dev/null; true"], ""),
        ],
        f"cat > Makefile <<'MAKEFILE'\n{right}MAKEFILE\n",
        {**sources, "Makefile": broken},
    )


def fix_package(dice: Dice) -> Draft:
    """A Python package that cannot be run."""
    name, first, second = dice.words(3)
    factor, offset = dice.number(2, 9), dice.number(1, 50)
    right = {
        f"{name}/__init__.py": f"from {name}.{first} import scale\nfrom {name}.{second} import shift\n\n"
        '__all__ = ["scale", "shift"]\n',
        f"{name}/{first}.py": f"FACTOR = {factor}\n\n\ndef scale(value):\n    return FACTOR * value\n",
        f"{name}/{second}.py": f"from {name}.{first} import scale\n\nOFFSET = {offset}\n\n\n"
        "def shift(value):\n    return scale(value) + OFFSET\n",
        f"{name}/__main__.py": f"import sys\n\nfrom {name} import scale, shift\n\n"
        'actions = {"scale": scale, "shift": shift}\n'
        "action, *values = sys.argv[1:]\nfor value in values:\n    print(actions[action](int(value)))\n",
    }
    breaks = (
        (f"{name}/__init__.py", f"from {name}.{second} import shift\n", ""),
        (f"{name}/__init__.py", f"from {name}.{first} import", f"from {first} import"),
        (f"{name}/{second}.py", f"from {name}.{first} import scale", f"from {name}.{first} import scaled"),
        (f"{name}/{second}.py", "return scale(value) + OFFSET", "return scale(value + OFFSET)"),
        (f"{name}/{first}.py", "FACTOR * value", "FACTOR + value"),
        (f"{name}/{first}.py", "def scale(value):\n", "def scale(value)\n"),
        (f"{name}/__main__.py", "int(value)", "value"),
        (f"{name}/__main__.py", "sys.argv[1:]", "sys.argv"),
        (f"{name}/__main__.py", '"shift": shift', '"shift": scale'),
    )
    broken = dict(right)
    for path, good, bad in dice.some(breaks, dice.number(2, 4)):
        broken[path] = broken[path].replace(good, bad)
    checks: list[Check] = []
    for action, amount in (("scale", 0), ("shift", offset)):
        values = [dice.number(-40, 90) for _ in range(3)]
        command = ["python3", "-m", name, action, *map(str, values)]
        checks.append(prints(action, command, "\n".join(str(factor * value + amount) for value in values)))
    readme = (
        f"# {name}\n\n`python3 -m {name} scale 1 2` prints each number times {factor}.\n"
        f"`python3 -m {name} shift 1 2` prints each number times {factor}, plus {offset}.\n"
        f"`from {name} import scale, shift` gives both as functions of a number.\n"
    )
    program = f"from {name} import scale, shift; print(scale(7), shift(7))"
    checks.append(prints("both functions", ["python3", "-c", program], f"{7 * factor} {7 * factor + offset}"))
    written = "".join(f"cat > {path} <<'PYTHON'\n{text}PYTHON\n" for path, text in right.items())
    return Draft(
        f"The package {HOME}/{name} should do what {HOME}/README.md says, run from {HOME}. It does not: mend it.",
        [*checks, *untouched({"README.md": readme})],
        written,
        {**broken, "README.md": readme},
    )


def git_restore(dice: Dice) -> Draft:
    """A file that was removed from a repository's history some time ago."""
    project, lost, branch = dice.words(3)
    lost_file, versions = f"{lost}.txt", [dice.text(dice.number(2, 6)) for _ in range(dice.number(2, 4))]
    tag = f"v{dice.number(1, 9)}.{dice.number(0, 9)}"
    others = dice.words(dice.number(2, 4))
    tagged = dice.number(0, len(versions) - 1)
    lines = [
        f"mkdir {project} && cd {project} && git init -q -b main",
        "git config user.name dev && git config user.email dev@localhost && git config commit.gpgsign false",
        "export GIT_AUTHOR_DATE='2025-01-01T00:00:00Z' GIT_COMMITTER_DATE='2025-01-01T00:00:00Z'",
    ]
    for index, text in enumerate(versions):
        lines.append(f"cat > {lost_file} <<'TEXT'\n{text}TEXT\ngit add -A && git commit -q -m 'Text {index + 1}'")
        if index == tagged:
            lines.append(f"git tag {tag}")
    lines.append(f"git rm -q {lost_file} && echo start > notes.txt && git add -A && git commit -q -m 'Start over'")
    for word in others:
        lines.append(f"echo {word} >> notes.txt && git commit -q -am 'Note {word}'")
    lines.append(f"git checkout -q -b {branch} && echo draft > draft.txt && git add -A && git commit -q -m 'Draft'")
    commits = len(versions) + 1 + len(others)
    message = f"Restore {lost_file}"
    at = ["git", "-c", f"safe.directory={HOME}/{project}", "-C", f"{HOME}/{project}"]
    return Draft(
        f"{HOME}/{project} is a git repository. Some time ago {lost_file} was removed from it. Bring it back on the "
        f"branch main, with the content that it has at the tag {tag}, by exactly one new commit on main with the "
        f"message `{message}` that changes nothing else. The history of main stays as it is, the branch {branch} too. "
        "In the end main is checked out and nothing is left uncommitted.",
        [
            prints("the text is back", [*at, "show", f"main:{lost_file}"], versions[tagged]),
            prints("the message is right", [*at, "log", "-1", "--format=%s", "main"], message),
            prints("one commit was added", [*at, "rev-list", "--count", "main"], str(commits + 1)),
            prints("it changes one file", [*at, "diff", "--name-status", "main~1", "main"], f"A\t{lost_file}"),
            prints("the history is there", [*at, "log", "-1", "--format=%s", "main~1"], f"Note {others[-1]}"),
            prints("the branch is there", [*at, "log", "-1", "--format=%s", branch], "Draft"),
            prints("main is checked out", [*at, "symbolic-ref", "--short", "HEAD"], "main"),
            prints("nothing is left", [*at, "status", "--porcelain"], ""),
        ],
        f"cd {project}\ngit checkout -q main\ngit checkout -q {tag} -- {lost_file}\ngit commit -q -m '{message}'\n",
        setup="\n".join(lines) + "\n",
    )
