"""Rules of the house that no linter knows: which package imports which, no circles, one place for the record."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("llava", "bunny", "visual_region", "playground", "scripts", "llava_plugins")
RECORD = "llava/checkpoint/record.py"
RECORD_KEYS = ("kept_layers", "removed_layers", "reverted_layers")


def sources() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, lazy: bool = False) -> Iterator[tuple[str, int]]:
    """Modules that a file imports from this repository, with the line; `lazy`: those inside functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else _at_import(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from ((name, node.lineno) for name in found if name.partition(".")[0] in PACKAGES)


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not the bodies of functions, nor what is for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not checking:
            yield node
            yield from _at_import(node)


def test_files_are_short():
    long = {str(f.relative_to(REPOSITORY)): n for f in sources() if (n := len(f.read_text().splitlines())) > 300}
    assert not long


def test_llava_imports_visual_region_in_training_only():
    found = {
        (str(file.relative_to(REPOSITORY)), line)
        for file in (REPOSITORY / "llava").rglob("*.py")
        for name, line in imports(file, lazy=True)
        if name.startswith("visual_region")
    }
    assert all(file.startswith("llava/train/") for file, _ in found), found
    assert len(found) <= 5, found


@pytest.mark.parametrize(("package", "others"), [("llava", ("bunny",)), ("bunny", ("visual_region",))])
def test_arrows(package, others):
    """Neither by an import nor by a module's name in a string."""
    module = re.compile(rf"^({'|'.join(others)})(\.\w+)+$")
    for file in (REPOSITORY / package).rglob("*.py"):
        assert not [name for name, _ in imports(file, lazy=True) if name.partition(".")[0] in others], file
        strings = (n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant))
        assert not [text for text in strings if isinstance(text, str) and module.match(text)], file


def test_no_circles():
    """Imports inside functions count too: they are where circles hide."""
    modules = {name_of(file): file for file in sources()}
    graph = {
        name: {target for target, _ in imports(file, lazy=True) if target in modules and target != name}
        for name, file in modules.items()
    }
    left = dict(graph)
    while True:
        free = [name for name, targets in left.items() if not targets & left.keys()]
        if not free:
            break
        for name in free:
            del left[name]
    # What is left is on a circle, or imports what is.
    on_circle = {name for name in left if _reaches(name, name, graph)}
    assert not on_circle


def _reaches(start: str, goal: str, graph: dict[str, set[str]]) -> bool:
    seen, left = set(), list(graph[start])
    while left:
        name = left.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            left += graph[name]
    return False


def test_one_parser():
    """llava.flags.Parser alone ends on a wrong flag with one line and a suggestion."""
    for file in sources():
        calls = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
        assert not [c for c in calls if ast.unparse(c).endswith("ArgumentParser") and "Hf" not in ast.unparse(c)], file
        assert file.name == "names.py" or "difflib" not in file.read_text(), f"{file}: llava.names has did_you_mean"


def test_one_file_names_the_records_keys():
    for file in sources():
        if str(file.relative_to(REPOSITORY)) != RECORD:
            strings = {n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)}
            assert not strings & set(RECORD_KEYS), file


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md"))])
def test_pages_name_files_that_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:llava|bunny|visual_region|scripts|tests|playground|docs)/[\w./]+\.(?:py|sh|md))`", text)
    modules = re.findall(r"python -m ((?:llava|visual_region)(?:\.\w+)*)", text)
    paths += [f"{module.replace('.', '/')}" for module in modules]
    made = ("playground/data/", "scripts/eval/NAME.sh")
    missing = [
        p for p in paths if not p.startswith(made) and not any((REPOSITORY / q).exists() for q in (p, f"{p}.py"))
    ]
    assert not missing


def test_each_difference_from_upstream_names_its_tests():
    page = (REPOSITORY / "docs/upstream.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| upstream |")]
    assert rows
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (REPOSITORY / file).read_text(encoding="utf-8"), f"{file}::{test}"
