"""A plant for each test."""

from collections.abc import AsyncIterator

import pytest

from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.postgres import Database
from tests.integration.alerts.plant import Plant, minutes_ago


@pytest.fixture
async def plant(database: Database, tenant: TenantId, agent: AgentId) -> AsyncIterator[Plant]:
    """A plant whose time begins an hour ago, so that nothing it does is in the future."""
    plant = Plant(database, tenant, agent, minutes_ago(60))
    await plant.accept_since(-86_400)
    yield plant
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM alert_rules WHERE tenant_id = %(tenant)s", {"tenant": tenant})
