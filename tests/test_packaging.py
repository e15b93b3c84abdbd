"""The wheel works outside the repository; the files around the code agree with each other."""

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser

import pytest

import llava
from tests.conftest import REPOSITORY
from visual_region.commands.doctor import OPTIONAL


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel, unpacked, as pip would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    flags = ["--quiet", "--no-deps", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    # From a copy of the tracked files: building writes into the source folder.
    source = folder / "source"
    source.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    copied = subprocess.run(
        ["tar", "-C", str(REPOSITORY), "--null", "--ignore-failed-read", "-T", "-", "-cf", "-"],
        input=files,
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "-C", str(source), "-xf", "-"], input=copied.stdout, check=True)
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", *flags, str(source)], capture_output=True, text=True)
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip("pip cannot get setuptools here")
    assert done.returncode == 0, done.stderr
    [file] = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def outside(wheel, tmp_path, *words):
    """Runs the wheel's Python in another folder."""
    environment = os.environ | {"PYTHONPATH": str(wheel), "LLAVA_CACHE": str(tmp_path)}
    return subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_console_scripts_of_the_wheel(wheel, tmp_path):
    [entries] = wheel.glob("*.dist-info/entry_points.txt")
    scripts = ConfigParser()
    scripts.read_string(entries.read_text())
    assert set(scripts["console_scripts"]) == {"visual-region", "llava-train", "llava-eval"}
    for name, target in scripts["console_scripts"].items():
        module, function = target.split(":")
        code = f"import sys; sys.argv = [{name!r}, '--help']; from {module} import {function}; {function}()"
        done = outside(wheel, tmp_path, "-c", code)
        assert done.returncode == 0, done.stderr
        assert "usage" in done.stdout


def test_the_wheel_has_its_data_files(wheel, tmp_path):
    code = (
        "import json, llava.train.zero as zero\n"
        "print(json.dumps([zero.__file__, zero.config_of_stage(2), zero.config_of_stage(3)]))"
    )
    done = outside(wheel, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    place, *configs = json.loads(done.stdout.splitlines()[-1])
    assert place.startswith(str(wheel))
    assert [config["zero_optimization"]["stage"] for config in configs] == [2, 3]
    for package in ("llava", "bunny", "visual_region"):
        assert (wheel / package / "py.typed").is_file()
    assert (wheel / "llava_plugins/bunny.py").is_file()
    assert not (wheel / "tests").exists()


def test_setup_searches_no_data(tmp_path, monkeypatch):
    """A search for namespace packages would read every folder."""
    setuptools = pytest.importorskip("setuptools")
    for folder in ("llava/model", "llava_plugins", "checkpoints/run"):
        (tmp_path / folder).mkdir(parents=True)
    for package in ("llava", "llava/model"):
        (tmp_path / package / "__init__.py").touch()
    walk, read, found = os.walk, [], {}

    def noted(*arguments, **options):
        for folder in walk(*arguments, **options):
            read.append(os.path.relpath(folder[0]))
            yield folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "walk", noted)
    monkeypatch.setattr(setuptools, "setup", found.update)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    assert sorted(found["packages"]) == ["llava", "llava.model", "llava_plugins"]
    assert set(read) == {".", "llava", "llava/model"}


def test_doctor_outside_the_repository(wheel, tmp_path):
    done = outside(wheel, tmp_path, "-m", "visual_region", "doctor")
    assert done.returncode == 0, done.stderr
    assert f"llava-visual-region {llava.__version__}, in {wheel}" in done.stdout
    for word in ("torch", "device: ", "attention: ", "kernels: ", "cache: "):
        assert word in done.stdout


def test_doctor_says_what_to_install(monkeypatch, capsys):
    from importlib.metadata import PackageNotFoundError

    from visual_region.commands import doctor

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", missing)
    doctor.run(None)
    said = capsys.readouterr().out
    for package, (purpose, extra) in OPTIONAL.items():
        assert re.search(rf"{package} .*{re.escape(purpose)}.*'\.\[{extra}\]'", said), package
    assert "MISSING" in said


def test_the_doctors_packages_are_in_their_extras():
    setup = (REPOSITORY / "setup.py").read_text()
    for package, (_, extra) in OPTIONAL.items():
        assert re.search(rf'"{extra}": \[[^]]*"{package}\b', setup), package


def test_one_version():
    assert f"version: {llava.__version__}" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"({llava.__version__})" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_one_version_of_ruff():
    wanted = re.search(r"^ruff==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.M)[1]
    assert f"rev: v{wanted}\n" in (REPOSITORY / ".pre-commit-config.yaml").read_text()
    target = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    assert target == "py311"


def test_scripts_have_the_configs_of_the_package():
    for name in ("zero2.json", "zero3.json", "zero3_offload.json"):
        assert (REPOSITORY / "scripts" / name).resolve() == REPOSITORY / "llava/train/deepspeed_configs" / name
