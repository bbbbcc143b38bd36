"""The house: one list of dependencies, modules in the order of the chain, light imports, documented names."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[1]
PACKAGE = TOP / "minigen"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]

# The chain, in order: at import time a module imports the modules before it and `engine`; `train` also `corpus`.
CHAIN = ["audio", "quantizer", "codec", "patterns", "t5", "text", "transformer", "lm", "loss", "regularizer", "optim",
         "train", "guidance", "generate", "metrics"]  # fmt: skip
FOLDERS = {"corpus", "generators", "conditioning", "tuning", "decoding", "interop", "evaluation", "display", "course",
           "app", "recipes", "engine"}  # fmt: skip
# Found by name when they are needed: imported inside the function that looks them up.
LOOKED_UP = {"decoding", "interop", "generators", "conditioning", "tuning"}
# At the top of the stack: nothing but themselves imports them.
OUTER = {"app", "course", "recipes"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def texts() -> list[Path]:
    """Every file of the repository that a person reads, without what is generated."""
    kinds = {".py", ".md", ".toml", ".yml", ".cff", ".ipynb", ""}
    made = {".git", ".venv", "build", "__pycache__", "minigen.egg-info", ".ipynb_checkpoints"}
    made |= {".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis"}
    found = []
    for folder, folders, files in os.walk(TOP):
        folders[:] = [name for name in folders if name not in made]
        found += [Path(folder, name) for name in files if Path(name).suffix in kinds and name not in made]
    return found


# dependencies


def test_every_dependency_is_listed_once_and_with_a_version():
    extras = PROJECT["optional-dependencies"]
    listed = PROJECT["dependencies"] + extras["dev"] + extras["hub"]
    names = [re.match(r"[\w-]+", line)[0] for line in listed]
    assert len(set(names)) == len(names)
    assert all(re.search(r">=\d", line) for line in listed)


def test_conda_gets_its_libraries_from_pyproject_and_nowhere_else():
    listed = yaml.safe_load((TOP / "environment.yml").read_text())["dependencies"]
    conda = [line for line in listed if isinstance(line, str)]
    (pip,) = [line["pip"] for line in listed if isinstance(line, dict)]
    assert sorted(re.match(r"\w+", line)[0] for line in conda) == ["pip", "python"]
    assert len(pip) == 1 and pip[0].startswith("-e .[")
    assert set(re.findall(r"\w+", pip[0].split("[")[1])) <= set(PROJECT["optional-dependencies"])


def test_make_and_ci_install_what_pyproject_lists():
    make = (TOP / "Makefile").read_text()
    assert re.findall(r"\$\(PIP\) (.*)", make) == [
        '"$(TORCH)" $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))', '-e ".[dev,hub]"',
    ]  # fmt: skip
    listed = [line["run"] for line in workflow()["jobs"]["test"]["steps"] if "run" in line]
    assert listed == ["make test"]
    others = ("requirements*.txt", "setup.py", "setup.cfg", "Pipfile", "conda*.yml")
    assert not [path for kind in others for path in TOP.glob(kind)]


def test_every_package_is_installed():
    installed = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [".".join(path.parent.relative_to(TOP).parts) for path in PACKAGE.rglob("__init__.py")]
    assert set(found) - set(installed) == set(), "add these to [tool.setuptools] packages in pyproject.toml"
    assert set(installed) - set(found) == {"minigen.data"}


def workflow() -> dict:
    return yaml.safe_load((TOP / ".github/workflows/ci.yml").read_text())


def make(*argv: str) -> str:
    done = subprocess.run(["make", "-n", *argv], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_asks_for_the_pytorch_that_pyproject_names_for_cpus():
    (torch,) = PROJECT["optional-dependencies"]["cpu"]
    assert f'"{torch}"' in make("--always-make", "lint", "PYTHON=python3")
    assert '"torch"' in make("--always-make", "lint", "PYTHON=python3", "TORCH=torch")
    elsewhere = make("--always-make", "lint", "PYTHON=python3", "TORCH_INDEX=https://example.org/cpu")
    assert f'"{torch}" --index-url https://example.org/cpu' in elsewhere


@pytest.mark.parametrize("target", ["demo", "test", "lab", "lint", "doctor"])
def test_every_target_makes_what_it_needs(target):
    planned = make("--always-make", target, "PYTHON=python3")
    steps = ["-m venv", "torch==", '".[dev,hub]"', "-m minigen doctor --mend", "touch"]
    places = [planned.index(step) for step in steps]
    assert places == sorted(places)
    assert planned.rstrip().count("\n") > planned[: places[-1]].count("\n"), "nothing is done after the set-up"


def test_make_help_names_every_target():
    listed = re.search(r"\.PHONY: (.*)", (TOP / "Makefile").read_text())[1].split()
    shown = make("help")
    assert all(target == "help" or f"make {target} " in shown for target in listed)


def test_a_machine_without_a_fitting_python_is_told_so(tmp_path):
    (tmp_path / "Makefile").write_text((TOP / "Makefile").read_text())
    (tmp_path / "pyproject.toml").write_text((TOP / "pyproject.toml").read_text())
    done = subprocess.run(["make", "test", "CANDIDATES=nopython"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "minigen needs Python 3.11 or newer" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_ci_run_calls_make_test_and_stops_at_the_first_failure():
    script = TOP / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text() and script.read_text().rstrip().endswith("make test")
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_pre_commit_runs_what_make_lint_runs_and_downloads_nothing():
    (repo,) = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local" and {hook["language"] for hook in repo["hooks"]} == {"system"}
    linting = [
        line.removesuffix(" .")
        for line in make("lint").splitlines()
        if line.startswith((".venv/bin/ruff", ".venv/bin/mypy"))
    ]
    assert sorted(hook["entry"] for hook in repo["hooks"]) == sorted(linting)


def test_types_of_the_chain_and_the_engine_are_checked_by_make_test():
    checked = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    assert checked == ["minigen/*.py", "minigen/engine"]
    assert ".venv/bin/mypy\n" in make("test")


# layout


def test_the_top_folder_holds_what_a_newcomer_looks_for():
    for name in ("README.md", "LICENSE", "CITATION.cff", "Makefile", "environment.yml", "pyproject.toml", "minigen",
                 "tests", "notebooks", "data", ".ci/run", ".github/workflows/ci.yml"):  # fmt: skip
        assert (TOP / name).exists(), name
    assert (TOP / "LICENSE").read_text().startswith("MIT License")
    cited = yaml.safe_load((TOP / "CITATION.cff").read_text())
    assert cited["license"] == PROJECT["license"] and cited["version"] == PROJECT["version"]


def test_shipped_weights_are_safetensors_of_120_megabytes_at_the_most():
    files = [path for path in (TOP / "data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 120e6
    weights = [path for path in files if not {"samples", "corpus", "study"} & set(path.relative_to(TOP).parts)]
    assert {path.suffix for path in weights} <= {".safetensors", ".json", ".md", ".csv"}


def test_the_card_of_the_corpus_is_a_page_and_pictures_of_a_megabyte_and_a_half_at_the_most():
    files = list((TOP / "data/corpus").iterdir())
    assert {path.suffix for path in files} == {".md", ".png"}
    assert sum(path.stat().st_size for path in files) < 1.5e6


def test_nothing_names_one_machines_folders_or_a_package_host():
    private = re.compile(r"(?<![\w.~])/(?:home|root|work|Users|mnt)/\w|pypi\.org|pythonhosted\.org")
    found = [
        f"{path.relative_to(TOP)}: {hit[0]}" for path in texts() if (hit := private.search(path.read_text("utf-8")))
    ]
    assert not found


def test_no_source_is_left_unfinished():
    unfinished = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")
    assert not [str(path) for path in (*sources(), *TOP.glob("*.md")) if unfinished.search(path.read_text("utf-8"))]


# modules


def room(path: Path) -> str:
    """The module or folder of the top level that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_the_top_level_is_the_chain_and_the_folders():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__", "__main__"} <= {*CHAIN, *FOLDERS}
    assert {*CHAIN} <= found
    folders = {folder for path in sources() for folder in path.parents if folder.is_relative_to(PACKAGE)}
    assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("path", sources())
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def imported(path: Path, lazily: bool = False) -> set[str]:
    """Modules of minigen that a file imports at import time; with `lazily`, also those that its functions import."""
    tree = ast.parse(path.read_text())
    inside = {id(node) for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    found = set()
    for node in ast.walk(tree):
        if not lazily and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("minigen.") and not name.startswith("minigen.__")}


def rooms(names: set[str]) -> set[str]:
    """The first name after `minigen.` of each import."""
    return {name.split(".")[1] for name in names}


@pytest.mark.parametrize("name", CHAIN)
def test_a_module_of_the_chain_imports_only_the_chain_before_it_and_the_engine(name):
    allowed = {*CHAIN[: CHAIN.index(name)], "engine"} | ({"corpus"} if name == "train" else set())
    path = PACKAGE / f"{name}.py"
    assert rooms(imported(path)) <= allowed
    assert rooms(imported(path, lazily=True)) <= allowed | LOOKED_UP


@pytest.mark.parametrize("path", sources())
def test_the_engine_stands_below_and_the_outer_folders_above_everything(path):
    own, used = room(path), rooms(imported(path, lazily=True))
    if own == "engine":
        assert used <= {"engine"}
    if own not in OUTER and own != "__main__":
        assert not used & OUTER


def test_no_circle_among_modules_at_import_time():
    names = {
        ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__"): path for path in sources()
    }
    arrows = {name: {use if use in names else use.rpartition(".")[0] for use in imported(path)} - {name}
              for name, path in names.items()}  # fmt: skip
    while free := [name for name, uses in arrows.items() if not uses & arrows.keys()]:
        for name in free:
            del arrows[name]
    assert not arrows


def public(tree: ast.AST):
    """Public functions, classes and methods of a module, with their names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


@pytest.mark.parametrize("path", sources())
def test_every_public_name_has_a_docstring(path):
    for node in public(ast.parse(path.read_text())):
        assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"


# imports


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_else():
    heavy = "[name for name in ('torch', 'numpy', 'scipy', 'transformers', 'torchaudio') if name in sys.modules]"
    assert run(f"import sys, minigen; print({heavy})") == "[]"
    assert run(f"import sys, minigen.app.cli, minigen.app.doctor; print({heavy})") == "[]"


def test_the_map_of_the_package_names_every_module_and_folder_in_order():
    page = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text("utf-8")))
    shown = re.findall(r"^ {4}(\w+) {2,}\S", page, re.MULTILINE)
    found = {room(path) for path in sources()} & {*CHAIN, *FOLDERS}
    assert [name for name in shown if name in CHAIN] == CHAIN
    assert found <= {*shown} <= {*CHAIN, *FOLDERS}


def test_text_files_are_read_as_utf_8_whatever_the_machine_is_set_to():
    assert not [str(path) for path in sources() if ".read_text()" in path.read_text("utf-8")]


def test_importing_the_chain_adds_little_to_importing_pytorch():
    """The parts that take seconds are loaded where they are used."""
    heavy = "[name for name in ('scipy', 'transformers', 'torchaudio', 'matplotlib', 'IPython') if name in sys.modules]"
    timed = "a = time.process_time(); import minigen.generate; b = time.process_time()"
    loaded, seconds = run(f"import time, torch, sys; {timed}; print({heavy}, b - a)").rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 1.0
