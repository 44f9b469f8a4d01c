import pytest
from official_files import Published, save_official

from gen3c.presets import TINY


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """At the sizes of `tiny`."""
    return save_official(tmp_path_factory.mktemp("published"), TINY)
