"""Generate the reference pages of the documentation site in docs/reference/, and check the navigation.

`make docs` runs it before the site is built. All pages come from the source tree, so that they cannot drift from the
code: the configuration (from the comments in configs/), the API (one page a package, a directive of mkdocstrings for
each module), and the signals and worlds (the same, with their configurations).
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "reference"
CONFIGS = ROOT / "configs"

# packages in the order of the data, each with a page of the API; signals and worlds have pages of their own
PACKAGES = {
    "ground": ["worldmodel"],
    "envs": ["worldmodel.envs"],
    "encoders": ["encoders"],
    "model": ["worldmodel.model"],
    "curiosity": ["worldmodel.curiosity"],
    "policy": ["worldmodel.policy"],
    "experience": ["worldmodel.experience"],
    "learner": ["worldmodel.learner"],
    "training": ["worldmodel.training"],
    "analysis": ["worldmodel.analysis"],
    "experiments": ["worldmodel.experiments"],
    "measure": ["worldmodel.measure"],
}
SIGNAL_PARTS = {"base", "combination", "reward_normalizer"}  # modules of worldmodel.curiosity that are not one signal
WORLDS = "worldmodel.envs.worlds"

# groups in the order of configs/train.yaml, then those of the other commands; a group not named here comes last
GROUPS = [
    *("env", "data", "encoder", "target", "memory", "model", "curiosity", "reward", "policy", "optimizer", "save"),
    *("rollback", "noise_scale", "resets", "logger", "trainer", "experiment", "suite", "study"),
]
HIDDEN = {"_target_", "_partial_", "_convert_", "defaults", "hydra"}

LINE = re.compile(r"^(?P<indent> *)(?P<dash>- )?(?P<key>[\w./@]+):(?: +(?P<rest>.*))?$")


@dataclass
class Option:
    """One YAML file: its leading comment, the class it builds, and its keys with defaults and comments."""

    name: str
    about: str = ""
    target: str = ""
    inherits: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)


def split_comment(text: str) -> tuple[str, str]:
    """Split a YAML value from the comment after it. A `#` counts only after a space and outside quotes."""
    quote = ""
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and (i == 0 or text[i - 1] == " "):
            return text[:i].strip(), text[i + 1 :].strip()
    return text.strip(), ""


def read_option(path: Path) -> Option:
    """Parse one file of configs/ line by line, since a YAML parser drops the comments."""
    option = Option(path.stem)
    parents: list[tuple[int, str]] = []
    skipped = -1  # indentation of a hidden block that is being skipped
    header: list[str] = []
    pending: list[str] = []  # comment lines above a key
    for line in path.read_text().splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("#"):
            text = line.lstrip()[1:].strip()
            if text.startswith("@package"):
                continue
            if not option.rows and not option.target and not pending and skipped < 0 and not parents:
                header.append(text)
            elif skipped < 0 and indent > 8 and option.rows:  # goes on from the comment of the line above
                key, value, comment = option.rows[-1]
                option.rows[-1] = (key, value, f"{comment} {text}".strip())
            else:
                pending.append(text)
            continue
        match = LINE.match(line)
        if skipped >= 0 and (indent > skipped or (indent == skipped and line.lstrip().startswith("- "))):
            continue
        skipped = -1
        if not match or match["dash"]:
            continue
        value, comment = split_comment(match["rest"] or "")
        key = match["key"]
        if key in HIDDEN:
            if key == "_target_" and not indent:
                option.target = value
            if key == "defaults":
                option.inherits = value.strip("[]").replace("_self_", "").strip(", ")
            skipped, pending = indent, []
            continue
        parents = [(i, k) for i, k in parents if i < indent]
        full = ".".join([*(k for _, k in parents), key])
        comment = " ".join([*pending, comment]).strip()
        pending = []
        if value:
            option.rows.append((full, value, comment))
        else:
            parents.append((indent, key))
            if comment:
                option.rows.append((full, "", comment))
    option.about = " ".join(header)
    return option


def cell(text: str, code: bool = False) -> str:
    """One cell of a Markdown table."""
    text = text.replace("|", "\\|")
    if code:
        return f"`{text}`" if text else ""
    return prose(text)


def prose(text: str) -> str:
    """Escape what Markdown would read as HTML or emphasis, outside code spans."""
    parts = text.split("`")
    return "`".join(re.sub(r"([<*\[])", r"\\\1", p) if i % 2 == 0 else p for i, p in enumerate(parts))


def write(path: Path, lines: list[str]) -> None:
    """Write the lines of a page; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n")


def option_lines(group: str, option: Option, level: str = "###") -> list[str]:
    """Lines of the page about one option of a config group."""
    title = f"{group}={option.name}" if group else option.name
    lines = [f"{level} `{title}`", ""]
    if option.about:
        lines += [prose(option.about), ""]
    facts = []
    if option.target:
        facts.append(f"Builds `{option.target}`.")
    if option.inherits:
        facts.append(f"Inherits from `{option.inherits}`.")
    if facts:
        lines += [" ".join(facts), ""]
    if option.rows:
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += [f"| {cell(k, True)} | {cell(v, True)} | {cell(c)} |" for k, v, c in option.rows]
        lines.append("")
    return lines


def write_config() -> None:
    """Write the configuration reference: the commands' own files, then one section a group."""
    lines = [
        "# Configuration reference",
        "",
        "Generated from the comments in `configs/`. Every key is set on the command line as `group.key=value`;",
        "`python -m worldmodel.train --cfg job --resolve` prints the configuration of a run. An unknown key or a value",
        "of the wrong type ends the command with exit code 2 and one line that names it.",
        "",
        "## Commands",
        "",
    ]
    roots = sorted(CONFIGS.glob("*.yaml"), key=lambda p: (p.stem != "train", p.stem))
    for path in roots:
        lines += option_lines("", read_option(path))
    folders = sorted(
        (p for p in CONFIGS.iterdir() if p.is_dir() and any(p.glob("*.yaml"))),
        key=lambda p: (GROUPS.index(p.name) if p.name in GROUPS else len(GROUPS), p.name),
    )
    for folder in folders:
        lines += [f"## {folder.name}", ""]
        for path in sorted(folder.glob("*.yaml")):
            lines += option_lines(folder.name, read_option(path))
    write(OUT / "config.md", lines)


def modules(package: str) -> list[str]:
    """Dotted names of the modules in a package that have a docstring, subpackages included, `__init__` last."""
    folder = ROOT / package.replace(".", "/")
    paths = folder.glob("*.py") if package == "worldmodel" else folder.rglob("*.py")
    names = []
    for path in sorted(paths):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__" or '"""' not in path.read_text():
            continue
        names.append(".".join(parts))
    return names


def directive(name: str, level: int = 2) -> list[str]:
    """Lines that insert the docstrings of a module or class."""
    return [f"::: {name}", "    options:", f"      heading_level: {level}", ""]


def write_api() -> None:
    """Write one page a package."""
    index = ["# API", "", "One page a package, in the order of the data. Generated from the docstrings.", ""]
    for page, packages in PACKAGES.items():
        found = [name for package in packages for name in modules(package)]
        if page == "curiosity":
            found = [n for n in found if n not in signal_modules()]
        if page == "envs":
            found = [n for n in found if not n.startswith(WORLDS)]
        lines = [f"# {page.capitalize() if page == 'ground' else f'`{packages[0]}`'}", ""]
        if page == "ground":
            lines += ["Small modules that all packages import, and the commands.", ""]
        for name in found:
            lines += directive(name)
        write(OUT / "api" / f"{page}.md", lines)
        index.append(f"- [{page}](api/{page}.md): {len(found)} modules")
    write(OUT / "api.md", index)


def signal_modules() -> list[str]:
    """Modules of worldmodel.curiosity that hold one signal each."""
    folder = ROOT / "worldmodel" / "curiosity"
    names = [p.stem for p in sorted(folder.glob("*.py")) if p.stem != "__init__" and p.stem not in SIGNAL_PARTS]
    return [f"worldmodel.curiosity.{name}" for name in names]


def module_of_class() -> dict[str, str]:
    """Class name -> module, from the imports of worldmodel/curiosity/__init__.py."""
    text = (ROOT / "worldmodel" / "curiosity" / "__init__.py").read_text()
    found = {}
    for module, names in re.findall(r"^from (worldmodel\.curiosity\.\w+) import (.+)$", text, re.M):
        for name in re.findall(r"\w+", names):
            found[name] = module
    return found


def write_signals() -> None:
    """Write the signal reference: the options of each module, then its docstrings."""
    where = module_of_class()
    options: dict[str, list[Option]] = defaultdict(list)
    others: list[Option] = []
    for path in sorted((CONFIGS / "curiosity").glob("*.yaml")):
        option = read_option(path)
        module = where.get(option.target.rpartition(".")[2], option.target.rpartition(".")[0])
        if module in signal_modules():
            options[module].append(option)
        else:
            others.append(option)
    lines = [
        "# Signal reference",
        "",
        "Generated from the docstrings and from `configs/curiosity/`: formula, source and departures of each signal.",
        "",
    ]
    for module in signal_modules():
        lines += directive(module)
        for option in options[module]:
            lines += option_lines("curiosity", option, "###")
    lines += ["## Combinations and published settings", ""]
    for option in others:
        lines += option_lines("curiosity", option, "###")
    write(OUT / "signals.md", lines)


def write_worlds() -> None:
    """Write the reference of the package's own worlds and the environment options."""
    lines = [
        "# World reference",
        "",
        "Generated from the docstrings of `worldmodel.envs.worlds` and from `configs/env/`.",
        "",
        "## Options of `env`",
        "",
    ]
    for path in sorted((CONFIGS / "env").glob("*.yaml")):
        lines += option_lines("env", read_option(path))
    for name in modules(WORLDS):
        lines += directive(name)
    write(OUT / "worlds.md", lines)


def missing_pages() -> list[str]:
    """Pages that the navigation in mkdocs.yml names and that do not exist; the strict build does not check them."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    return [page for page in re.findall(r"[\w./-]+\.md", nav) if not (ROOT / "docs" / page).exists()]


def main() -> None:
    """Write all generated pages."""
    shutil.rmtree(OUT, ignore_errors=True)
    write_config()
    write_api()
    write_signals()
    write_worlds()
    if missing := missing_pages():
        sys.exit(f"error: mkdocs.yml names pages that do not exist: {', '.join(missing)}")


if __name__ == "__main__":
    main()
