import pytest
from official_files import Published, save_official

from tests.cosmos import TINY_COSMOS


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """At the sizes of `tiny`, with Cosmos' tokenizer."""
    return save_official(tmp_path_factory.mktemp("published"), TINY_COSMOS)
