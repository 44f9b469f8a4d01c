"""Every profile of the chart with every feature, rendered once."""

import pytest

from tests.deploy.chart import CASES, FEATURES, GPU_FEATURES, Rendered, profile, render
from tests.deploy.values import Values, merged


@pytest.fixture(scope="session")
def rendered_cases() -> dict[tuple[str, str], tuple[Values, Rendered]]:
    """The values that were given, and what came of them, by profile and feature."""
    features = FEATURES | GPU_FEATURES
    given = {(name, feature): merged(profile(name), features[feature]) for name, feature in CASES}
    return {key: (values, render(values)) for key, values in given.items()}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}: {case[1]}")
def case(
    request: pytest.FixtureRequest, rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]
) -> tuple[Values, Rendered]:
    """A profile with a feature: the values that were given, and what came of them."""
    return rendered_cases[request.param]
