"""Servers and a plant for each row, and the table that the rows make."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.chaos import table
from tests.chaos.plant import Plant, Row, plant
from tests.conftest import Stack, new_stack
from tests.serving import new_data_folder

ROWS: list[Row] = []


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Servers of these tests' own: they are killed."""
    with new_stack() as running:
        yield running


@pytest.fixture
async def chaos(stack: Stack) -> AsyncIterator[Plant]:
    """A plant whose platform is not started yet."""
    with new_data_folder() as folder:
        async with plant(stack, folder) as made:
            yield made


@pytest.fixture
def rows() -> list[Row]:
    """What the tests of this run have counted."""
    return ROWS


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table into the page, when all of it was run and the run was asked for it."""
    if os.environ.get("IOTISTICA_TEST_TABLE") and session.testsfailed == 0 and ROWS:
        table.write(Path(__file__).parents[2] / "docs" / "delivery.md", ROWS)
