"""What the texts say about the repository is so."""

import ast
import json
import pathlib
import re
import subprocess

import pytest
import yaml

from swath import config

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def tree() -> dict[str, str]:
    """Return path -> sentence of the file tree in the README."""
    block = re.search(r"## What is where\n\n```text\n(.*?)```", README, re.DOTALL)[1]
    found = {}
    for line in block.splitlines():
        indent, name, sentence = re.fullmatch(r"( *)(\S+)\s+(.+)", line).groups()
        found[("src/swath/" if indent else "") + name] = sentence
    return found


def shown(folder: pathlib.Path) -> set[str]:
    """Return what lies in ``folder``, without what .gitignore leaves out."""
    lines = (ROOT / ".gitignore").read_text().splitlines()
    ignored = {line.strip("/") for line in lines if line[0] != "/" or folder == ROOT}
    names = set()
    for path in folder.iterdir():
        if path.name in ignored or path.name == ".git" or path.suffix in (".egg-info", ".pyc"):
            continue
        if path.is_dir() and not any(p.is_file() for p in path.rglob("*")):
            continue  # git does not keep empty folders
        names.add(path.name + "/" * path.is_dir())
    return names


def test_the_file_tree_of_the_readme_is_true():
    """Everything at the top and every room is in it with a sentence, and nothing that is not."""
    top = {name for name in shown(ROOT) if name not in (".gitignore", "src/")} | {"src/swath/"}
    rooms = {f"src/swath/{name}" for name in shown(ROOT / "src/swath") if not name.startswith("__")}
    assert tree().keys() == top | rooms


def written_in(file: pathlib.Path) -> set[str]:
    """Return the names that ``file`` defines or imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_scripts_import_what_is_there():
    """Benchmarks and recipes are run by hand, and rarely: nothing else would say that a name that
    they import has moved."""
    for script in [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("recipes/*/*.py")]:
        for line in ast.walk(ast.parse(script.read_text())):
            if not isinstance(line, ast.ImportFrom) or not str(line.module).startswith("swath"):
                continue
            room = ROOT / "src" / str(line.module).replace(".", "/")
            file = room / "__init__.py" if room.is_dir() else room.with_suffix(".py")
            inside = {path.stem for path in room.glob("*")} | written_in(file)
            missing = {one.name for one in line.names} - inside
            assert not missing, f"{script.relative_to(ROOT)}: {line.module} has no {missing}"


def test_links_between_pages_lead_somewhere():
    """A newcomer follows them from the README on; generated pages are made by `make docs`."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*/*.md")]
    for page in pages:
        if "generated" in page.parts or "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" in target or "generated/" in target:
                continue
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_every_page_is_in_a_list_of_pages():
    """Sphinx leaves out the others; `make docs` stops at them, but runs less often than this."""
    docs = ROOT / "docs"
    listed = {docs / "index.md"}
    for page in docs.rglob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            names = [n for n in block.splitlines() if n and not n.startswith(":")]
            listed |= {(page.parent / name).with_suffix(".md") for name in names}
    pages = {p for p in docs.rglob("*.md") if not {"_build", "generated"} & set(p.parts)}
    assert pages - listed == set()


def test_models_and_networks_do_not_know_of_ranks():
    """They are spread over ranks from outside; import-linter knows no part of another package."""
    for room in ("nn", "models"):
        for path in (ROOT / "src/swath" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not [n for n in names if n.startswith("torch.distributed")], path


def test_recipes_load_and_fit_the_schema():
    """A recipe that no longer loads is found here, not by whoever runs it."""
    import jsonschema

    from swath.assess import verb
    from swath.schema import schema
    from swath.settings import Run

    recipes = sorted(ROOT.glob("recipes/*/*.yaml"))
    assert len(recipes) >= 2
    compared = [path for path in recipes if path.stem == "assess"]
    for path in compared:
        settings = verb.load([path])
        assert all((ROOT / task.run[0]).exists() for task in settings.tasks.values())
    recipes = [path for path in recipes if path not in compared]
    checker = jsonschema.Draft202012Validator(schema(Run))
    for recipe in recipes:
        main = recipe.with_name("recipe.yaml")  # others are laid over it
        run = config.load(Run, list(dict.fromkeys([main, recipe])))
        checker.validate(json.loads(json.dumps(config.plain(run))))


@pytest.mark.parametrize("page", ["README.md", "docs/howto/own_scene.md"])
def test_the_first_own_run_loads_as_printed(page, tmp_path):
    """The ten lines of the README, and the recipe of the how-to, are whole."""
    from swath.settings import Run

    text = (ROOT / page).read_text()
    block = re.search(r"( *)```yaml\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix(block[1]) for line in block[2].splitlines()]
    run = config.build(Run, yaml.safe_load("\n".join(lines)), page)
    assert run.build is not None and run.model is not None
    if page == "README.md":
        assert run.train.samples % run.batch.samples == 0
        words = re.search(r"`swath train mine.yaml (batch[^`]*) --dry-run\s+--ranks (\d+)`", text)
        (tmp_path / "mine.yaml").write_text("\n".join(lines))
        run = config.load(Run, [tmp_path / "mine.yaml"], words[1].split())
        assert len(run.batch.mine(0, int(words[2]))) == 1
        assert sum(not line.startswith("#") for line in lines) <= 10


def test_the_files_of_pretraining_load_as_printed(tmp_path, monkeypatch):
    """What the README pretrains, compares and fine-tunes is one encoder, by three files."""
    from swath.assess import verb
    from swath.settings import Run

    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", README, re.DOTALL):
        (tmp_path / name).write_text(text)
    words = re.search(r'swath train mine.yaml name=fine .* \\\n\s+"(model=.*)"\n', README)[1]
    learned = config.load(Run, ["pretrain.yaml"])
    fine = config.load(Run, ["mine.yaml"], [words])
    [task] = verb.load(["compare.yaml"]).tasks.values()
    assert task.run == ("mine.yaml", words)
    assert words.startswith("model={kind: vit, ") and learned.task.labels is None
    for name in ("width", "depth", "heads", "patch"):
        assert getattr(fine.model, name) == getattr(learned.model, name)


def test_every_recipe_folder_is_whole():
    """A recipe is settings, a fact sheet and a check; data that ships says where it is from."""
    folders = [p for p in (ROOT / "recipes").iterdir() if p.is_dir()]
    for folder in folders:
        for name in ("recipe.yaml", "README.md", "check.py"):
            assert (folder / name).exists(), f"{folder.name} has no {name}"
        if (folder / "data").exists():
            assert (folder / "data" / "SOURCE.md").exists(), f"{folder.name}/data"


@pytest.mark.parametrize("target", ["demo", "test", "check", "docs"])
def test_make_says_what_it_sets_up(target, tmp_path):
    """pip -q takes minutes without a word: a line before each call says what it is at."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    command = ["make", "--dry-run", target]
    lines = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    lines = [line for line in lines.splitlines() if not line.startswith("  ")]
    slow = [i for i, line in enumerate(lines) if " pip install " in line or " -m venv " in line]
    assert len(slow) == (3 if target == "demo" else 4)
    for i in slow:
        assert re.match(r"echo \"setting up .venv\b.*: (making|downloading and)", lines[i - 1])
