"""What is installed, what it imports, and what the papers say about it."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import clipcore_backends
import pytest
from libraries import table

import clipcore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARIES = ("cupy", "dask", "jax", "mlx", "ndonnx", "paddle", "sparse", "tensorflow", "torch")
OPTIONAL = (*LIBRARIES, "hypothesis", "matplotlib", "ml_dtypes", "rich", "sklearn")
PUBLIC = (
    "clip_by_global_norm",
    "clip_by_l1_norm",
    "clip_by_l2_norm",
    "clip_by_value",
    "clip_weights",
    "global_norm",
    "l1_norm",
    "l2_norm",
)
# What its own library imports is not clipcore's doing: so that is looked at before and after.
ARRIVAL = """
import importlib, sys, clipcore
name, *libraries = sys.argv[1:]
assert not set(libraries) & set(sys.modules)
modules = {"dask": "dask.array", "jax": "jax.numpy", "mlx": "mlx.core"}
makers = {"tensorflow": "constant", "paddle": "to_tensor", "mlx": "array", "torch": "tensor"}
module = importlib.import_module(modules.get(name, name))
make = makers.get(name, "asarray")
x = getattr(module, make)([3.0, 4.0])
before = set(sys.modules)
clipcore.clip_by_value(x, -1, 1)
if name != "sparse":
    clipcore.clip_by_global_norm({"x": x}, 1.0)
print(sorted(each for each in libraries if each in set(sys.modules) - before))
"""
PACKAGE = Path(clipcore.__file__).parent
ADAPTERS = [PACKAGE / f"_{name}.py" for name in ("mlx", "paddle", "tensorflow", "torch")]  # import a library
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py") and path not in ADAPTERS
)


def test_both_packages_come_from_one_root() -> None:
    root = Path(clipcore.__file__).parents[1]
    assert Path(clipcore_backends.__file__).parents[1] in (root, root / "backends")


def test_the_folder_of_the_engines_holds_nothing_else() -> None:
    rooms = {path.name for path in (ROOT / "backends").iterdir()} - {"__pycache__"}
    assert rooms == {"README.md", "clipcore_backends"}


@pytest.mark.parametrize("package", [clipcore, clipcore_backends])
def test_the_packages_are_marked_as_typed(package: object) -> None:
    assert (Path(str(getattr(package, "__file__", ""))).parent / "py.typed").is_file()


@pytest.mark.parametrize("module", ["clipcore", "clipcore.cli"])
def test_importing_brings_no_optional_library_along(module: str) -> None:
    code = f"import sys, {module}; print(sorted({set(OPTIONAL)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", *LIBRARIES])
def test_no_array_library_is_imported_before_an_array_of_it_arrives(
    library: str, request: pytest.FixtureRequest
) -> None:
    if importlib.util.find_spec(library) is None:
        if request.config.getoption("--require-all") and library != "cupy":
            pytest.fail(f"{library} is not installed")
        pytest.skip(f"{library} is not installed")
    if library in ("cupy", "ndonnx"):
        pytest.skip("its arrays need a GPU, or are refused")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ARRIVAL, library, *LIBRARIES], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


def test_the_names_exported_are_the_names_documented() -> None:
    assert tuple(clipcore.__all__) == PUBLIC
    documented = re.findall(r"^\| `(\w+)", README, flags=re.MULTILINE)
    assert sorted(documented) == list(PUBLIC)
    contract = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    table = contract[: contract.index("## Laws")]
    assert sorted(set(re.findall(r"`(\w+)\(\w+, /", table))) == list(PUBLIC)


def test_the_table_of_libraries_is_the_one_that_the_suite_prints() -> None:
    begin, end = "<!-- the table that tests/libraries.py prints -->\n", "\n<!-- end of the table -->"
    assert README[README.index(begin) + len(begin) : README.index(end)] == table()


def test_every_file_that_the_readme_names_is_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_version_is_written_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert clipcore.__version__ == project["version"]
    assert f"\nversion: {clipcore.__version__}\n" in citation
    assert f"\n## [{clipcore.__version__}]" in changes


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_shows_an_example(name: str) -> None:
    docstring = getattr(clipcore, name).__doc__
    assert "\n    Examples\n    --------\n    >>> " in docstring
    assert "\n    Parameters\n" in docstring
    assert "\n    Returns\n" in docstring


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    for framework in ("keras", "optax", "torch"):
        if name.startswith(f"integrations.{framework}") or name.startswith(f"integrations._{framework}"):
            pytest.importorskip(framework, reason=f"{framework} is not installed")
    module = importlib.import_module(f"clipcore.{name}")
    assert doctest.testmod(module).failed == 0


FIRST_LOOK = ROOT / "docs" / "first_look.py"


def rows_of(text: str) -> dict[str, list[str]]:
    """The rows of a table, by what stands in front of the first blank or comma."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if " of 300 |" in line]
    return {re.split("[ ,]", name)[0]: cells for name, *cells in rows}


@pytest.mark.parametrize(
    "name", ["by-hand", "clipcore", "torch.clip_grad_norm_", "optax.clip_by_global_norm"]
)
def test_the_first_table_of_the_readme_is_what_its_clips_do(
    name: str, request: pytest.FixtureRequest
) -> None:
    done = subprocess.run([sys.executable, FIRST_LOOK, name], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        if request.config.getoption("--require-all"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    own, shown = rows_of(done.stdout)[name], rows_of(README)[name]
    assert own[2:] == shown[2:]
    for counted, said in zip(own[:2], shown[:2], strict=True):  # other processors may add in another order
        assert abs(int(counted.split()[0]) - int(said.split()[0])) <= (0 if name == "clipcore" else 30)


def test_the_first_table_of_the_readme_has_every_clip_that_its_command_shows() -> None:
    spec = importlib.util.spec_from_file_location("first_look", FIRST_LOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.HEAD in README
    assert list(rows_of(README)) == list(module.CLIPS)


@pytest.mark.slow
def test_the_readme_shows_what_its_commands_print_of_the_digits_gradients(tmp_path: Path) -> None:
    make = [sys.executable, str(ROOT / "docs" / "digits_gradients.py"), "digits.npz"]
    subprocess.run(make, cwd=tmp_path, check=True, timeout=300)
    command = re.search(r"^\.venv/bin/(clipcore verify .* --input digits\.npz)$", README, flags=re.MULTILINE)
    assert command is not None
    asked = [sys.executable, "-m", *command[1].split()]
    told = subprocess.run(
        asked, cwd=tmp_path, capture_output=True, text=True, timeout=600
    ).stdout.splitlines()
    shown = README.partition("subject  as  ")[2].splitlines()[1:4]
    assert [line.rstrip() for line in told[1:4]] == shown


@pytest.mark.slow
def test_the_norms_that_the_readme_calls_wrong_are() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    done = subprocess.run(
        [sys.executable, FIRST_LOOK, "--large"], capture_output=True, text=True, timeout=300
    )
    for said in re.findall(r"(\d+\.\d) %", README[: README.index("## Ten lines")]):
        assert f"{said}% off" in done.stdout


def test_what_the_readme_shows_arrives_in_three_libraries(request: pytest.FixtureRequest) -> None:
    missing = [name for name in ("jax", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        if request.config.getoption("--require-all"):
            pytest.fail(f"{missing} not installed")
        pytest.skip(f"{', '.join(missing)} not installed")
    code, told = re.findall(
        r"```python\n(import jax.*?)```\n\nprints\n\n```text\n(.*?)```", README, re.DOTALL
    )[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    number = r"-?\d+\.\d*"
    assert re.sub(number, "x", done.stdout) == re.sub(number, "x", told)
    pairs = zip(re.findall(number, done.stdout), re.findall(number, told), strict=True)
    assert max(abs(float(a) - float(b)) for a, b in pairs) < 1e-5  # other versions of JAX may round otherwise


def test_the_example_in_the_readme_is_true() -> None:
    blocks = re.findall(r"```python\n(>>> .*?)```", README, flags=re.DOTALL)
    assert len(blocks) == README.count("```python\n") - 1  # one needs three libraries
    for block in blocks:
        example = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
        assert example.examples
        assert doctest.DocTestRunner().run(example).failed == 0


def test_the_examples_on_verifying_are_true() -> None:
    page = ROOT / "docs" / "verify.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0


def test_the_readme_cites_the_version_that_is_cited() -> None:
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for name in ("title", "version"):
        (value,) = re.findall(rf'^{name}: "?([^"\n]+)"?$', cited, flags=re.MULTILINE)
        assert re.search(rf"^  {name} += \{{{re.escape(value)}\}}", README, flags=re.MULTILINE)
    assert f"version: {clipcore.__version__}\n" in cited


def test_the_check_script_runs_the_readme_s_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    command = re.search(r"^readonly TEST='(.+)'$", script, flags=re.MULTILINE)
    assert command is not None
    assert f"\n{command[1]}\n" in README
