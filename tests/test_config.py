"""Settings: what is read, in what order, and what a mistake is told."""

import dataclasses
import importlib
import pathlib
import re
import sys
import types
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import jsonschema
import pytest
import yaml

from swath import config, explain
from swath import text as text_
from swath.config import Choice, ConfigError
from swath.schema import schema


@dataclass(frozen=True, kw_only=True)
class Shape(Choice):
    """Something with an area."""

    package: ClassVar[str] = "shapes_for_tests"


@dataclass(frozen=True, kw_only=True)
class Circle(Shape):
    """Round."""

    radius: float = 1.0
    """Half the width, in m."""


@dataclass(frozen=True, kw_only=True)
class Box(Shape):
    """Not round."""

    width: float
    """In m."""
    height: float = 2.0

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"width={self.width} is negative")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part."""

    lr: float = 1e-3
    """Learning rate."""
    steps: int = 10
    mode: Literal["fast", "exact"] = "exact"
    bands: tuple[str, ...] | None = None
    pair: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """All of it."""

    name: str = "run"
    out: pathlib.Path = pathlib.Path("out")
    flag: bool = False
    part: Part = Part()
    shape: Shape = field(default_factory=Circle)
    maybe: Shape | None = None
    shapes: tuple[Shape, ...] = ()
    named: dict[str, Part] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)


WORD = "shape={kind: broken}"
BROKEN = """import dataclasses
@dataclasses.dataclass(frozen=True)
class A: ...

@dataclasses.dataclass
class B(A): ...
"""


@pytest.fixture(autouse=True)
def collection(monkeypatch, tmp_path):
    """A collection of two files, as models/ is: importable, and listed by its folder."""
    folder = tmp_path / "shapes_for_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "broken.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, cls in (("circle", Circle), ("box", Box)):
        (folder / f"{name}.py").write_text("")
        module = types.ModuleType(f"shapes_for_tests.{name}")
        monkeypatch.setattr(cls, "__module__", module.__name__)
        module.__file__ = __file__
        setattr(module, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield
    for name in [n for n in sys.modules if n.startswith("shapes_for_tests")]:
        sys.modules.pop(name)


@pytest.fixture
def written(tmp_path):
    """Write YAML to a file of the name ``run.yaml`` and return its path."""

    def write(text: str, name: str = "run.yaml") -> pathlib.Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def told(files=(), words=()) -> str:
    """Return the message of the ConfigError that loading raises."""
    with pytest.raises(ConfigError) as caught:
        config.load(Whole, files, words)
    return str(caught.value)


def test_later_files_and_words_win(written):
    """Defaults < first file < second file < words, value by value, not block by block."""
    first = written("name: a\npart: {lr: 1, steps: 2}\n")
    second = written("part: {steps: 3}\n", "second.yaml")
    whole, places = config.trace(Whole, [first, second], ["part.lr=1e-4"])
    assert (whole.name, whole.part.lr, whole.part.steps) == ("a", 1e-4, 3)
    assert places["name"] == f"{first}:1"
    assert places["part.steps"] == f"{second}:1"
    assert places["part.lr"] == "'part.lr=1e-4'"


def test_numbers_words_and_truth_are_what_they_look_like():
    """YAML 1.1 reads 1e-4 as a word and `on` as true; here a number is one and a word is one."""
    whole = config.load(
        Whole, words=["part.lr=1e-4", "name=on", "flag=true", "part.bands=[B02, B8A]"]
    )
    assert (whole.part.lr, whole.name, whole.flag) == (1e-4, "on", True)
    assert whole.part.bands == ("B02", "B8A")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("40_000", 40_000),
        ("0x1f", 31),
        ("1e-4", 1e-4),
        ("2e3", 2000.0),
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("-.inf", -float("inf")),
        ("true", True),
        ("null", None),
        ("~", None),
        *((word, word) for word in ("on", "no", "True", "2017-02-16", "1:30", "0123", "1e", "B8A")),
    ],
)
def test_scalars_are_read_without_the_traps_of_yaml(text, value):
    """A date, a clock time and Norway are words; what is written back reads as the same."""
    read = text_.parse(text, "here", lines=False).value
    assert (read, type(read)) == (value, type(value))
    assert text_.parse(text_.as_yaml(value), "here", lines=False).value == value
    assert text_.parse(text_.as_yaml(text), "here", lines=False).value == text


def test_dump_and_load_agree(written):
    """A run folder's settings.yaml must make the same run again, choices included."""
    whole = config.load(
        Whole,
        words=[
            "maybe={kind: box, width: 3}",
            "shapes=[{kind: circle}, {kind: box, width: 1}]",
            "named={a: {steps: 4}}",
            "out=/some/where",
            "part.pair=[0.5, 0.25]",
        ],
    )
    assert config.load(Whole, [written(config.dump(whole))]) == whole


def test_a_choice_keeps_its_class_until_a_new_kind_is_written(written):
    """`shape.radius=3` speaks of the default circle; another kind drops the circle's settings."""
    assert config.load(Whole, words=["shape.radius=3"]).shape == Circle(radius=3)
    file = written("shape: {kind: circle, radius: 4}\n")
    assert config.load(Whole, [file], ["shape={kind: box, width: 1}"]).shape == Box(width=1)
    assert config.load(Whole, [file], ["shape.radius=5"]).shape == Circle(radius=5)


def test_braces_in_a_word_replace_all_of_what_they_name(written, caplog):
    """`key={...}` reads as "key is this": no field of the file's may stay behind in it, unsaid.
    A dotted word sets its field alone, before and after."""
    file = written("part:\n  steps: 7\n  bands: [B02]\n")
    with caplog.at_level("INFO", "swath"):
        assert config.load(Whole, [file], ["part.steps=8"]).part == Part(steps=8, bands=("B02",))
        assert not caplog.messages
        assert config.load(Whole, [file], ["part={steps: 8}"]).part == Part(steps=8)
    (said,) = caplog.messages
    assert f"{{...}} replaces all of part, so that bands ({file}:3) no longer hold" in said
    assert said.endswith("part.steps=... would set one field")
    assert config.load(Whole, [file], ["part={}"]).part == Part()
    words = ["part={steps: 8}", "part.lr=0.5"]
    assert config.load(Whole, [file], words).part == Part(steps=8, lr=0.5)
    assert config.load(Whole, [file, written("part: {lr: 0.5}", "two.yaml")]).part == Part(
        steps=7, bands=("B02",), lr=0.5
    )


def test_braces_that_leave_out_what_is_needed_say_so(written):
    """The kind that a file chose must not turn into the default's, nor a message puzzle."""
    file = written("shape: {kind: box, width: 1}\nmaybe: {kind: box, width: 3}\n")
    with pytest.raises(ConfigError) as error:
        config.load(Whole, [file], ["shape={width: 2}"])
    assert "{...} replaces all of shape, which" in str(error.value)
    assert f"{file}:1 makes a box: write kind: box in it as well" in str(error.value)
    assert str(error.value).endswith("as in shape.width=...")
    with pytest.raises(ConfigError, match=r"box needs 'width' .*; \{...\} replaces all of maybe"):
        config.load(Whole, [file], ["maybe={kind: box}"])


def test_a_class_of_the_users_own_is_named_by_import_path():
    """No registry: `module:Class` is enough, and dumps as it was written."""
    module = types.ModuleType("mylab_shapes")

    @dataclass(frozen=True, kw_only=True)
    class Star(Circle):
        """Pointed."""

    Star.__module__, Star.__qualname__ = "mylab_shapes", "Star"
    module.Star = Star
    sys.modules["mylab_shapes"] = module
    try:
        whole = config.load(Whole, words=["shape={kind: 'mylab_shapes:Star', radius: 2}"])
        assert type(whole.shape) is Star
        assert config.plain(whole)["shape"] == {"kind": "mylab_shapes:Star", "radius": 2.0}
    finally:
        del sys.modules["mylab_shapes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: a\npart:\n  lrr: 1\n",
            ":3: part.lrr: part has no field 'lrr' (did you mean 'lr'?)",
        ),
        ("part: {steps: 1.5}", ":1: part.steps: expected integer, got 1.5"),
        ("part: {steps: '10'}", ":1: part.steps: expected integer, got '10'"),
        (
            "part:\n  mode: exakt\n",
            "mode: expected 'fast' or 'exact' (did you mean 'exact'?), got 'ex",
        ),
        ("part:\n  bands:\n  - B02\n  - 3\n", ":4: part.bands"),
        ("flag: 1", ":1: flag: expected boolean, got 1"),
        (
            "part: 3",
            ":1: part: expected settings, such as part: {lr: ...}, got 3",
        ),
        (
            "shape: bix",
            ":1: shape: expected settings, such as shape: {kind: box}, got 'bix'",
        ),
        ("part: {steps: 2k}", ":1: part.steps: expected integer, got '2k'; write 2000"),
        ("part: {steps: 2e3}", ":1: part.steps: expected integer, got 2000.0; write 2000"),
        ("part: {lr: 1.5M}", ":1: part.lr: expected number, got '1.5M'; write 1500000"),
        ("part: {folder: 3}", ":1: part.folder: part has no field 'folder'; there are lr, steps"),
        (
            "part: {learning_rate: 3}",
            ":1: part.learning_rate: part has no field 'learning_rate' (did you mean 'lr'?)",
        ),
        (
            "titles: [water, land]",
            ":1: titles: expected pairs, such as {1: water, 2: land}, got a list",
        ),
        ("titles: 3", ":1: titles: expected pairs, such as {1: water, 2: forest}, got 3"),
        ("shape: {kind: bx, width: 1}", ":1: shape.kind: no shape 'bx' (did you mean 'box'?)"),
        ("maybe: {width: 1}", ":1: maybe: needs a 'kind': box, broken, circle, or module:Class"),
        ("maybe: {kind: box}", ":1: maybe: box needs 'width'"),
        ("name: a\nmaybe: {kind: box, width: -1}", ":2: maybe: width=-1.0 is negative"),
        ("shapes: {kind: box}", ":1: shapes: expected a list, such as shapes: [{kind: ...}], got"),
        ("shape: {kind: 'nowhere.at.all:Box'}", "no shape 'nowhere.at.all:Box'"),
        ("shape: {kind: 'shapes_for_tests.box:Bax'}", "has no class 'Bax' (did you mean 'Box'?)"),
        ("shape: {kind: 'pathlib:Path'}", "'pathlib:Path' is not one Shape"),
        ("name: a\nname: b\n", ":2: 'name' is written twice"),
        ("name: [a\nb: c", "not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(written, text, message):
    """Someone reads it at night: the file, the line, what is so, what was meant."""
    file = written(text)
    assert message in told([file])
    assert str(file) in told([file])


def test_a_mistake_in_a_word_is_told_with_the_word():
    """A word has no line; it is its own place."""
    assert told(words=["part.step=3"]) == (
        "'part.step=3': part.step: part has no field 'step' (did you mean 'steps'?)"
    )
    assert "expected key=value" in told(words=["lr"])


def test_an_unreadable_file_is_told(tmp_path):
    """A file that is not there is the commonest mistake of all."""
    assert told([tmp_path / "no.yaml"]).endswith("no.yaml: there is no such file")
    assert told(["no.yaml"]) == (
        f"no.yaml: there is no such file; looked for {pathlib.Path.cwd()}/no.yaml: relative paths "
        "are taken from the folder that swath is started in"
    )
    assert "cannot be read: Is a directory" in told([tmp_path])


def test_a_collection_file_that_lacks_a_library_says_which():
    """`no shape 'broken'` would hide that the file is there and a library is not."""
    said = r"shape.kind: \S+broken.py:1: cannot be imported: ModuleNotFoundError: .*no_such_library"
    with pytest.raises(ConfigError, match=said):
        config.load(Whole, words=["shape={kind: broken}"])


def test_a_broken_file_leaves_the_others_of_its_collection_usable(tmp_path):
    """One member that cannot be read must not end `swath show --kinds` for all others."""
    broken = tmp_path / "shapes_for_tests" / "broken.py"
    broken.write_text(BROKEN)
    importlib.invalidate_caches()
    rows = {kind: told for _, kind, told in explain.collections({"shape": Shape})}
    assert rows.keys() == {"box", "broken", "circle"}
    assert re.fullmatch(rf"broken: {broken}:5: cannot be .* TypeError: .*frozen.*", rows["broken"])
    assert config.members(Shape) == {"box": Box, "circle": Circle}
    assert "radius:" in explain.reference(Whole, "shape") and "radius" in str(schema(Whole))
    broken.write_text("class Broken(:\n")
    assert re.search(r"shape.kind: \S+broken.py: cannot be .* SyntaxError", told((), [WORD]))


def test_field_docs_come_from_the_strings_under_the_fields():
    """`swath show` prints them; a subclass inherits its bases'."""
    assert config.docs(Circle) == {"radius": "Half the width, in m."}
    assert config.docs(Part)["lr"] == "Learning rate."


@pytest.fixture
def without_broken(tmp_path):
    (tmp_path / "shapes_for_tests" / "broken.py").unlink()


@pytest.mark.usefixtures("without_broken")
def test_schema_accepts_what_load_accepts():
    """An editor must not underline a file that runs."""
    checker = jsonschema.Draft202012Validator(schema(Whole))
    checker.check_schema(checker.schema)
    whole = Whole(maybe=Box(width=1), shapes=(Circle(),), named={"a": Part(bands=("B02",))})
    checker.validate(config.plain(whole))
    checker.validate({"shape": {"radius": 2}})
    checker.validate({"shape": {"kind": "mylab:Star", "points": 5}})
    assert schema(Whole)["$defs"]["shapes_for_tests.circle.Circle"]["properties"]["radius"] == {
        "type": "number",
        "default": 1.0,
        "description": "Half the width, in m.",
    }


@pytest.mark.usefixtures("without_broken")
@pytest.mark.parametrize(
    "wrong",
    [
        {"nam": "a"},
        {"part": {"steps": "ten"}},
        {"shape": {"kind": "bx"}},
        {"maybe": {"width": 1}},
        {"maybe": {"kind": "box"}},
        {"shapes": [{"kind": "circle", "radios": 1}]},
    ],
)
def test_schema_refuses_what_load_refuses(wrong, written):
    """Otherwise the editor is silent and the run fails in the night."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema(Whole))
    with pytest.raises(ConfigError):
        config.load(Whole, [written(yaml.safe_dump(wrong))])


def test_settings_are_frozen():
    """A run's settings cannot drift from the file that made them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Whole().name = "other"


def test_what_is_needed_is_told_with_what_it_is():
    """Nobody knows a field by its name alone; and at the root, where to read on."""

    @dataclass(frozen=True, kw_only=True)
    class Root:
        """All of it."""

        box: Box | None = None
        part: Part

    with pytest.raises(ConfigError) as caught:
        config.load(Root, words=["box={kind: box}"])
    assert "box: box needs 'width' (In m)" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        config.load(Root)
    assert str(caught.value) == (
        "defaults: a root needs 'part' (written part: {...}); swath show --docs tells every "
        "setting, swath show --kinds what there is to choose from"
    )


@dataclass(frozen=True)
class Before:
    name: str
    size: int = 3


@dataclass(frozen=True)
class After:
    name: str
    size: int = 3
    colour: str = "red"
    inner: Before = Before("b")


def test_without_defaults_a_field_more_makes_no_difference():
    """A fingerprint of a store outlives releases that know more of it."""
    for old, new in ((Before("a"), After("a")), (Before("a", 4), After("a", 4))):
        assert config.plain(old, defaults=False) == config.plain(new, defaults=False)
        assert config.plain(old) != config.plain(new)
    assert config.plain(After("a", inner=Before("b", 4)), defaults=False) == {
        "name": "a",
        "inner": {"name": "b", "size": 4},
    }
