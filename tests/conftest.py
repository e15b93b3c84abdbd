"""What all tests share: threads, caches, and folders that one worker makes for the whole run."""

import gc
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Sums depend on the number of threads: a test and the processes that it starts have the same number. One each, as there
# are as many workers as cores. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The expected numbers are those of a CPU. TESTS_ON_GPU=1 is for the tests that need a GPU.
if not os.environ.get("TESTS_ON_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

REPOSITORY = Path(__file__).parents[1]
FIXTURES = ("parity", "tiny", "bunny", "surgery", "programs", "plans", "study", "anyres")
LONG = (
    "tests/llava/train/test_ranks.py",
    "tests/visual_region/study/test_paper_plans.py",
    "tests/playground/test_embedded.py",
    "tests/scripts/test_text_benchmarks.py",
    "tests/llava/train/test_train.py",
    "tests/bunny/train/test_backbones.py",
    "tests/llava/eval/answering/test_runner.py",
    "tests/visual_region/test_surgery.py",
    "tests/bunny/train/test_tower.py",
)
"""Files that take longest: they come first, so that no worker begins one when the others are done."""


def pytest_configure(config):
    """Loads the fixtures. The process that only deals the files out to the workers does without torch."""
    # Nothing is garbage until the first test.
    gc.disable()
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        from transformers import logging

        # Two notices about torchvision, which is not needed, would go to the terminal here.
        before = logging.get_verbosity()
        logging.set_verbosity_error()
        for name in FIXTURES:
            config.pluginmanager.import_plugin(f"tests.fixtures.{name}")
        logging.set_verbosity(before)


def pytest_collection_modifyitems(items):
    places = {file: place for place, file in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.split("::")[0], len(LONG)))


def pytest_collection_finish(session):
    """All that is imported stays: looking through it at each collection of garbage takes longer than most tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A folder of this test run, the same in all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "run"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def made_once(run_folder) -> Callable[[str, Callable[[Path], object]], Path]:
    """Gives the folder of a name; `make` fills it in the first worker that asks for it, and the others wait.

    All tests of the run share it: a test that changes files copies it first.
    """

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = run_folder / name, run_folder / f"{name}.done"
        with FileLock(run_folder / f"{name}.lock"):
            if not done.exists():
                # A worker that failed half-way leaves a part.
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session", autouse=True)
def _own_cache(run_folder):
    """Derived files of the tests stay out of the user's cache."""
    os.environ["LLAVA_CACHE"] = str(run_folder / "cache")


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The prepared playground; kept in .cache, as preparing takes half a minute.

    The folder's name has a digest of the files that prepare it: `prepare` does not change a part that exists.
    """
    from playground.embedded.prepare import prepare

    sources = [*sorted((REPOSITORY / "playground/embedded").glob("*.py")), REPOSITORY / "playground/requirements.txt"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    cache = REPOSITORY / ".cache"
    root = cache / f"embedded-{digest}"
    cache.mkdir(exist_ok=True)
    with FileLock(cache / "embedded.lock"):
        for folder in cache.glob("embedded*"):
            if folder.is_dir() and folder != root:
                shutil.rmtree(folder)
        root.mkdir(exist_ok=True)
        prepare(root, seed=0)
    return root
