"""The store: all of an artifact or nothing, whatever happens while it is made."""

import errno
import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from filelock import FileLock

from syn2real_utils.errors import UserError
from syn2real_utils.store import Store, fingerprint, home, in_any_order, write_text_atomic

KEY = {"text": "ä", "n": 1}


def fill(into: Path) -> None:
    (into / "sub").mkdir(exist_ok=True)
    (into / "sub" / "a.txt").write_text("hello")


def test_made_once_and_found_by_its_key(tmp_path):
    store, made = Store(tmp_path), []
    first = store.build("kind", "label", KEY, lambda into: (fill(into), made.append(1)))
    again = store.build("kind", "label", dict(reversed(KEY.items())), lambda into: made.append(2))
    assert made == [1] and again == first and first.path.name == f"label-{fingerprint(KEY)}"
    assert json.loads((first.path / "done.json").read_text())["key"] == KEY
    assert store.find("kind", "label", {**KEY, "n": 2}) is None


def test_what_is_made_may_be_read_by_whom_the_umask_lets(tmp_path):
    def own(into: Path) -> None:
        fill(into)
        (into / "sub" / "a.txt").chmod(0o600)  # as safetensors writes

    before = os.umask(0o022)
    try:
        made = Store(tmp_path).build("kind", "label", KEY, own)
    finally:
        os.umask(before)
    assert stat.S_IMODE((made.path / "sub" / "a.txt").stat().st_mode) == 0o644


def test_failure_publishes_nothing_and_the_next_call_goes_on(tmp_path):
    store = Store(tmp_path)

    def broken(into: Path) -> None:
        fill(into)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.build("kind", "label", KEY, broken)
    assert store.find("kind", "label", KEY) is None
    seen = []
    store.build("kind", "label", KEY, lambda into: seen.append((into / "sub" / "a.txt").read_text()))
    assert seen == ["hello"]
    assert not list(tmp_path.rglob("*.partial"))


def test_bad_input_leaves_no_trace(tmp_path):
    def refuse(into: Path) -> None:
        raise UserError("no")

    with pytest.raises(UserError):
        Store(tmp_path).build("kind", "label", KEY, refuse)
    assert not [p for p in (tmp_path / "kind").iterdir() if p.is_dir()]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: Disk quota exceeded (os error 122)"),
    ],
)
def test_full_disk_is_one_clear_line(tmp_path, error):
    def full(into: Path) -> None:
        raise error

    with pytest.raises(UserError, match="no space left on the disk while making .*label.*: free some and call again"):
        Store(tmp_path).build("kind", "label", KEY, full)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": {}}', '{"files": {"a.txt": 3}}'])
def test_a_damaged_description_is_damage_too(tmp_path, content):
    store = Store(tmp_path)
    (store.build("kind", "label", KEY, fill).path / "done.json").write_text(content)
    assert store.build("kind", "label", KEY, fill).damage(hashes=True) == []


@pytest.mark.parametrize("harm", ["delete", "cut"])
def test_damage_is_noticed_and_mended(tmp_path, harm):
    store = Store(tmp_path)
    file = store.build("kind", "label", KEY, fill).path / "sub" / "a.txt"
    file.unlink() if harm == "delete" else file.write_text("hell")
    assert store.build("kind", "label", KEY, fill).damage(hashes=True) == []
    file.write_text("HELLO")  # same size, other content
    assert store.build("kind", "label", KEY, fill).damage(hashes=True) == ["sub/a.txt"]


def _together(work, root: Path) -> list:
    """What three processes answer that do the same work at the same time."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=work, args=(root, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    return answers


def _build(root: Path, queue) -> None:
    made: list[int] = []
    Store(root).build("kind", "label", KEY, lambda into: (fill(into), made.append(1)))
    queue.put(made)


def test_two_processes_make_it_once(tmp_path):
    assert [one for made in _together(_build, tmp_path) for one in made] == [1]


def _step(store: Store, name: str, made: list[str], then=lambda: None):
    def make(into: Path) -> None:
        fill(into)
        made.append(name)
        then()

    return lambda: store.build("kind", name, KEY, make).path.name.partition("-")[0]


@pytest.mark.parametrize("nested", [False, True])
def test_what_another_process_makes_is_put_off(tmp_path, nested):
    store, made = Store(tmp_path), []
    _step(store, "a", [])()  # where its lock lies
    (folder,) = (tmp_path / "kind").glob("a-*[0-9a-f]")
    (folder / "done.json").unlink()
    other = FileLock(f"{folder}.lock").acquire()
    first, last = _step(store, "a", made), _step(store, "c", made, then=lambda: other.lock.release())
    steps = [(lambda: in_any_order([first])[0]) if nested else first, _step(store, "b", made), last]
    assert in_any_order(steps) == ["a", "b", "c"] and made == ["b", "c", "a"]


def _share(root: Path, queue) -> None:
    made: list[str] = []
    found = in_any_order([_step(Store(root), name, made) for name in "abcdef"])
    queue.put((found, made))


def test_processes_share_the_making_of_what_all_need(tmp_path):
    answers = _together(_share, tmp_path)
    assert all(found == list("abcdef") for found, _ in answers)
    assert sorted(name for _, made in answers for name in made) == list("abcdef")


def test_home_is_the_checkout_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.delenv("SYN2REAL_HOME", raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_overview.ipynb").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert home() == tmp_path.resolve()
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path / "else"))
    assert home() == (tmp_path / "else").resolve()


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "sub" / "a.json"
    write_text_atomic(file, "ä")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomic(file, "half of it \ud800")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_text_atomic(file, "b")
    assert [path.name for path in file.parent.iterdir()] == ["a.json"] and file.read_text(encoding="utf-8") == "ä"
