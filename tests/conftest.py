"""What tests share: the checkout's own store, so that weights and speech are fetched once."""

import gc
import shutil
from pathlib import Path

import pytest

from syn2real_utils import fetch
from syn2real_utils.store import Store

ROOT = Path(__file__).parents[1]
STAMPS = ("tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34")
CLIPS = {  # per backbone
    "base": (
        "animals/mammals/deer/doe_desc_es.ogg",
        "food/vegetables/mushroom_desc_es.ogg",
        "household/dishes/utensils/pepper_grinder_desc_es.ogg",
        "space/planets/3_earth_desc_es.ogg",
    ),
    "tiny.en": (
        "animals/mammals/elephant_desc.ogg",
        "animals/mammals/giraffe_desc.ogg",
        "animals/marsupials/kangaroo_desc.ogg",
        "animals/birds/penguin_desc.ogg",
    ),
}


def pytest_collection_finish() -> None:
    """What test modules import stays: the collection of garbage behind each fine-tune need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Store:
    """The store of this checkout: what `make reproduce` fetched or will need."""
    return Store(ROOT)


@pytest.fixture(scope="session")
def real_clips(shared_data: Store) -> dict[str, list[Path]]:
    """Real clips for each carried backbone, from the Tux Paint package."""

    def make(folder: Path) -> None:
        tree = fetch.debian_tree(*STAMPS, folder / "tree")
        for clip in [clip for clips in CLIPS.values() for clip in clips]:
            shutil.copyfile(tree / "usr/share/tuxpaint/stamps" / clip, folder / clip.replace("/", "-"))
        shutil.rmtree(tree)

    kept = shared_data.build("data/tests", "clips", {"package": STAMPS, "clips": CLIPS}, make).path
    return {name: [kept / clip.replace("/", "-") for clip in clips] for name, clips in CLIPS.items()}
