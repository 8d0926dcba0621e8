"""What tests share: the checkout's own store, so that weights and speech are fetched once."""

from pathlib import Path

import pytest

from syn2real_utils.store import Store

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Store:
    """The store of this checkout: what `make reproduce` fetched or will need."""
    return Store(ROOT)
