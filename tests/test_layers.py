"""The layer table of docs/architecture.md as code: who may import whom."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"ft", "review", "storage", "app", "demo", "bench"}
TORCH_FAMILY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets"}
TORCH_FILES = (
    "models",
    "decoding",
    "gathering",
    "residents",
    "engine_local",
    "losses",
    "watch",
    "trainer",
    "train",
    "objectives",
    "sampling",
    "saving",
    "rehearsal",
    "exporting",
)
ENGINE_FILES = ("adapter_weights", "kernels", "keyvalues", "lean", "mixing", "writing")
TORCH_SIDE = {f"ft.{name}" for name in TORCH_FILES + ENGINE_FILES}


@dataclass(frozen=True)
class Import:
    file: Path
    line: int
    name: str
    at_top: bool


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[Import]:
    tree = ast.parse(path.read_text())
    guarded = [block for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)]
    checking = {id(node) for block in guarded for node in ast.walk(block)}
    top = {id(n) for n in tree.body}
    found = []
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            found += [Import(path, node.lineno, a.name, id(node) in top) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import; write the whole name"
            found.append(Import(path, node.lineno, node.module or "", id(node) in top))
            if node.module in OURS or (node.module or "").startswith(tuple(f"{o}." for o in OURS)):
                found += [Import(path, node.lineno, f"{node.module}.{a.name}", id(node) in top) for a in node.names]
    return found


def first(name: str) -> str:
    return name.split(".")[0]


def is_under(name: str, *allowed: str) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


def offenders(folder: str, ours: tuple[str, ...], never: set[str], skip: tuple[str, ...] = ()) -> list[str]:
    bad = []
    for path in sources(folder):
        if is_under(module_of(path), *skip):
            continue
        for found in imports(path):
            on_the_way = any(a.startswith(found.name + ".") for a in ours)
            wrong_ours = first(found.name) in OURS and not is_under(found.name, *ours) and not on_the_way
            if wrong_ours or first(found.name) in never:
                bad.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.name}")
    return bad


CASES = {
    "protocol": ("review/protocol", ("review.protocol",), {"gradio", "sqlmodel", "sqlalchemy", "fastapi"} | TORCH_FAMILY),
    "storage": ("storage", ("storage",), {"gradio", "fastapi"} | TORCH_FAMILY),
    "services": (
        "review/services",
        ("review.services", "review.protocol", "review.settings", "storage", "ft"),
        {"gradio", "fastapi"} | TORCH_FAMILY,
    ),
    "screens": (
        "review/screens",
        ("review.screens", "review.services", "review.protocol.ballots", "ft.errors", "ft.specs"),
        {"sqlmodel", "sqlalchemy", "alembic"} | TORCH_FAMILY,
    ),
    "http": (
        "review/http",
        ("review.http", "review.guard", "review.services", "ft"),
        {"gradio", "sqlmodel", "sqlalchemy"} | TORCH_FAMILY,
    ),
    "commands": (
        "review/commands",
        ("review.commands", "review.services", "review.settings", "review.protocol.ballots", "ft"),
        {"gradio", "sqlmodel", "sqlalchemy"} | TORCH_FAMILY,
    ),
    "ft": ("ft", ("ft",), {"gradio", "sqlmodel", "sqlalchemy", "fastapi"}),
}


@pytest.mark.parametrize("layer", CASES)
def test_no_layer_imports_what_its_row_forbids(layer: str) -> None:
    folder, ours, never = CASES[layer]
    assert offenders(folder, ours, never) == []


def test_services_and_commands_use_only_the_light_files_of_ft() -> None:
    bad = [
        f"{p.relative_to(ROOT)}:{i.line} imports {i.name}"
        for folder in ("review/services", "review/commands", "review/http")
        for p in sources(folder)
        for i in imports(p)
        if is_under(i.name, *TORCH_SIDE)
    ]
    assert bad == []


def test_light_files_of_ft_import_no_torch_at_the_top() -> None:
    bad = [
        f"{p.relative_to(ROOT)}:{i.line} imports {i.name}"
        for p in sources("ft")
        if module_of(p) not in TORCH_SIDE
        for i in imports(p)
        if i.at_top and (first(i.name) in TORCH_FAMILY | {"evaluate", "nltk", "sacrebleu", "rouge_score"} or is_under(i.name, *TORCH_SIDE))
    ]
    assert bad == []


def test_the_web_process_and_app_never_import_torch_directly() -> None:
    files = [ROOT / "app.py", *(p for p in (ROOT / "review").glob("*.py"))]
    assert [f"{p.name}:{i.line} imports {i.name}" for p in files for i in imports(p) if first(i.name) in TORCH_FAMILY] == []


def test_the_check_sees_a_forbidden_import(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    import gradio\n    from storage import queries\n")
    assert {i.name for i in imports(file)} == {"gradio", "storage", "storage.queries"}


def test_every_module_says_what_it_is() -> None:
    files = [p for folder in ("ft", "review", "storage", "demo", "bench") for p in sources(folder) if "versions" not in p.parts]
    assert [str(p.relative_to(ROOT)) for p in [*files, ROOT / "app.py"] if not ast.get_docstring(ast.parse(p.read_text()))] == []
