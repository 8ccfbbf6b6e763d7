"""Tasks about files: finding, counting, packing, linking them, and who may do what with them."""

from __future__ import annotations

from agent_rl_envs.terminal.made.draft import HOME, Check, Dice, Draft, same_text, same_value, sha256, untouched

_ENDINGS = ("txt", "md", "csv", "log", "conf", "py", "dat")


def _tree(dice: Dice, top: str, count: int, endings: tuple[str, ...] = _ENDINGS) -> dict[str, str]:
    """Files in folders up to three deep, with names that differ."""
    folders, names = dice.words(6), dice.some(range(100, 999), count)
    files: dict[str, str] = {}
    for number in names:
        below = "/".join(dice.some(folders, dice.number(0, 3)))
        path = "/".join(part for part in (top, below, f"{dice.words(1)[0]}{number}.{dice.one(*endings)}") if part)
        files[path] = dice.text(dice.number(1, 40))
    return files


def count_files(dice: Dice) -> Draft:
    """Count files of a kind above a size."""
    top = dice.words(1)[0]
    files = _tree(dice, top, dice.number(25, 60))
    ending, least = dice.one(*_ENDINGS), dice.number(2, 9) * 100
    found = {path: len(text.encode()) for path, text in files.items() if path.endswith(f".{ending}")}
    large = {path: size for path, size in found.items() if size > least}
    largest = max(large, key=lambda path: (large[path], path), default=None)
    value = {"count": len(large), "bytes": sum(large.values()), "largest": largest}
    return Draft(
        f"Below the folder {HOME}/{top} there are files of several kinds, in folders of any depth. Look at those whose "
        f"name ends with .{ending} and that have more than {least} bytes. Write {HOME}/report.json: a JSON object with "
        "`count` (how many there are), `bytes` (their sizes together) and `largest` (the path of the largest relative "
        f"to {HOME}; of several the one that sorts last; null if there is none). Change nothing else.",
        [same_value("report.json", value), *untouched(files)],
        f"""python3 - <<'PYTHON'
import json
from pathlib import Path
found = [(p.stat().st_size, str(p)) for p in Path("{top}").rglob("*.{ending}") if p.stat().st_size > {least}]
largest = max(found)[1] if found else None
result = {{"count": len(found), "bytes": sum(size for size, _ in found), "largest": largest}}
Path("report.json").write_text(json.dumps(result))
PYTHON
""",
        files,
    )


def permissions(dice: Dice) -> Draft:
    """Set permissions by rules."""
    top = dice.words(1)[0]
    files = _tree(dice, top, dice.number(8, 16), ("sh", "key", "txt", "conf"))
    modes = {
        "sh": dice.one("750", "755", "700"),
        "key": dice.one("600", "400"),
        "other": dice.one("640", "644", "664"),
        "folder": dice.one("750", "755", "711"),
    }
    folders = sorted({"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)})
    wanted = {path: modes.get(path.rpartition(".")[2], modes["other"]) for path in files}
    wanted |= dict.fromkeys(folders, modes["folder"])
    checks: list[Check] = [
        {"kind": "mode", "name": f"{path} has mode {mode}", "path": f"{HOME}/{path}", "mode": oct(int(mode, 8))}
        for path, mode in wanted.items()
    ]
    return Draft(
        f"Set the permissions of {HOME}/{top} and of all that is below it: folders {modes['folder']} ({top} itself "
        f"too), files that end with .sh {modes['sh']}, files that end with .key {modes['key']}, all other files "
        f"{modes['other']} (octal). Contents stay as they are.",
        [*checks, *untouched(files)],
        f"find {top} -type f ! -name '*.sh' ! -name '*.key' -exec chmod {modes['other']} {{}} +\n"
        f"find {top} -type f -name '*.sh' -exec chmod {modes['sh']} {{}} +\n"
        f"find {top} -type f -name '*.key' -exec chmod {modes['key']} {{}} +\n"
        f"find {top} -depth -type d -exec chmod {modes['folder']} {{}} +\n",
        files,
        f"chmod -R u+rwX,g={dice.one('rw', 'r', '')},o={dice.one('rwX', 'r', '')} {top}\n",
    )


def links(dice: Dice) -> Draft:
    """A second view of a tree, made of symbolic links."""
    top, view = dice.words(2)
    files = _tree(dice, top, dice.number(8, 20))
    relative = dice.one(True, False)
    how = "relative" if relative else "absolute or relative"
    checks: list[Check] = [
        {
            "kind": "link",
            "name": f"{view}: link to {path}",
            "path": f"{HOME}/{view}/{path.rpartition('.')[2]}/{path.rpartition('/')[2]}",
            "target": f"{HOME}/{path}",
            "relative": relative,
        }
        for path in files
    ]
    return Draft(
        f"Make a view of the files below {HOME}/{top} by kind: for each file a symbolic link ({how}) "
        f"{HOME}/{view}/KIND/NAME that leads to it, where NAME is the file's name and KIND what stands after the last "
        f"dot of it. For example, {HOME}/{next(iter(files))} gets {checks[0]['path']}. The files stay where they are.",
        [*checks, *untouched(files)],
        f"""find {top} -type f | while read -r path; do
    kind="${{path##*.}}"
    mkdir -p "{view}/$kind"
    ln -s -r "$path" "{view}/$kind/$(basename "$path")"
done
""",
        files,
    )


def checksums(dice: Dice) -> Draft:
    """A manifest of checksums that is not right any more."""
    top = dice.words(1)[0]
    files = _tree(dice, top, dice.number(10, 24))
    paths = sorted(files)
    changed = dice.some(paths, dice.number(1, 4))
    gone = [f"{top}/{word}.old" for word in dice.words(dice.number(1, 3))]
    fresh = dice.some([path for path in paths if path not in changed], dice.number(1, 3))
    listed = {
        path: sha256(files[path] + "x" if path in changed else files[path]) for path in paths if path not in fresh
    }
    listed |= {path: sha256(path) for path in gone}
    manifest = "".join(f"{listed[path]}  {path}\n" for path in dice.some(list(listed), len(listed)))
    right = "".join(f"{sha256(files[path])}  {path}\n" for path in paths)
    problems = [*(f"changed {p}" for p in changed), *(f"missing {p}" for p in gone), *(f"new {p}" for p in fresh)]
    return Draft(
        f"{HOME}/manifest.sha256 lists SHA-256 sums of the files below {HOME}/{top}, in the format of sha256sum, paths "
        f"relative to {HOME}. Some of it is wrong. Write {HOME}/problems.txt with one line for each problem, in any "
        "order: `changed PATH` for a file whose sum is another, `missing PATH` for one that is listed and not there, "
        "`new PATH` for one that is there and not listed. Then correct the manifest, sorted by path (as by LC_ALL=C).",
        [
            same_text("problems.txt", "\n".join(problems), in_order=False),
            same_text("manifest.sha256", right),
            *untouched(files),
        ],
        f"""python3 - <<'PYTHON'
import hashlib
from pathlib import Path
listed = {{}}
for line in Path("manifest.sha256").read_text().splitlines():
    digest, path = line.split("  ", 1)
    listed[path] = digest
there = {{str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in Path("{top}").rglob("*") if p.is_file()}}
problems = [f"changed {{p}}" for p in there if p in listed and listed[p] != there[p]]
problems += [f"missing {{p}}" for p in listed if p not in there] + [f"new {{p}}" for p in there if p not in listed]
Path("problems.txt").write_text("\\n".join(problems) + "\\n")
Path("manifest.sha256").write_text("".join(f"{{there[p]}}  {{p}}\\n" for p in sorted(there)))
PYTHON
""",
        {**files, "manifest.sha256": manifest},
    )


def duplicates(dice: Dice) -> Draft:
    """Remove all but one of the files with the same content."""
    top = dice.words(1)[0]
    files = _tree(dice, top, dice.number(8, 16))
    originals = dice.some(sorted(files), dice.number(2, 5))
    for path in originals:
        for _ in range(dice.number(1, 3)):
            copy = f"{top}/{dice.words(1)[0]}/{dice.words(1)[0]}{dice.number(1000, 9999)}.{dice.one(*_ENDINGS)}"
            files[copy] = files[path]
    keeps_first = dice.one(True, False)
    kept: dict[str, str] = {}
    for path in sorted(files, reverse=not keeps_first):
        kept.setdefault(files[path], path)
    staying = sorted(kept.values())
    checks: list[Check] = [
        {"kind": "absent", "name": f"{path} is removed", "path": f"{HOME}/{path}"}
        for path in files
        if path not in staying
    ]
    which = "first" if keeps_first else "last"
    return Draft(
        f"Some files below {HOME}/{top} have the same content as others, under whatever names. Of each set of such "
        f"files keep the one whose path sorts {which} (as LC_ALL=C sorts, by bytes), and remove the rest. Write the "
        f"number of removed files to {HOME}/removed.txt. Files without a twin stay.",
        [*checks, *untouched(files, *staying), same_text("removed.txt", str(len(checks)))],
        f"""python3 - <<'PYTHON'
from pathlib import Path
seen, removed = set(), 0
for path in sorted((p for p in Path("{top}").rglob("*") if p.is_file()), key=str, reverse={not keeps_first}):
    content = path.read_bytes()
    if content in seen:
        path.unlink()
        removed += 1
    seen.add(content)
Path("removed.txt").write_text(f"{{removed}}\\n")
PYTHON
""",
        files,
    )


def archive(dice: Dice) -> Draft:
    """A release archive with a layout of its own."""
    top = dice.words(1)[0]
    files = _tree(dice, top, dice.number(10, 24), ("txt", "md", "py", "tmp", "log"))
    version = f"{dice.number(0, 4)}.{dice.number(0, 20)}.{dice.number(0, 9)}"
    compression = dice.one("gz", "xz", "bz2")
    left_out = dice.some(["txt", "md", "py", "tmp", "log"], dice.number(1, 2))
    prefix, name = f"{top}-{version}", f"{top}-{version}.tar.{compression}"
    packed = {
        f"{prefix}/{path.removeprefix(top + '/')}": sha256(text)
        for path, text in files.items()
        if path.rpartition(".")[2] not in left_out
    }
    check: Check = {"kind": "archive", "name": f"{name} is right", "path": f"{HOME}/{name}"}
    kinds = " and ".join(f".{ending}" for ending in left_out)
    excluded = " ".join(f"--exclude='*.{ending}'" for ending in left_out)
    return Draft(
        f"Pack {HOME}/{top} into {HOME}/{name}, a tar compressed as its name says. In it, everything is in one folder "
        f"{prefix}/ that stands for {top}/, with the same folders below. Files whose names end with {kinds} are left "
        f"out. {HOME}/{top} itself stays as it is.",
        [{**check, "compression": compression, "files": packed}, *untouched(files)],
        f"tar {excluded} --transform='s,^{top},{prefix},' -caf {name} {top}\n",
        files,
    )
