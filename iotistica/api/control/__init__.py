"""Routes for target states, agent updates and jobs."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.control import (
    agent_jobs,
    agent_updates,
    apps,
    endpoints,
    explanation,
    fleet_progress,
    job_agents,
    job_templates,
    jobs,
    targets,
)

ROUTES: Final[list[ControllerRouterHandler]] = [
    targets.AgentTargets,
    targets.FleetTargets,
    apps.AgentApps,
    apps.FleetApps,
    endpoints.router,
    explanation.router,
    fleet_progress.router,
    agent_updates.router,
    job_templates.router,
    jobs.router,
    job_agents.router,
    agent_jobs.router,
]
