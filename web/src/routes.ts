// The pages and their paths. The server's list of first path parts is in iotistica/api/page/page.py.
import type { Component } from 'svelte'

type Load = () => Promise<{ default: Component<{ parameters: Record<string, string> }> }>

export interface Route {
  /** Parts that begin with a colon are parameters. */
  paths: string[]
  load: Load
  /** Whether the page is for people who are not logged in. */
  isOpen?: boolean
}

const page = (load: () => Promise<unknown>): Load => load as Load

export const routes: Route[] = [
  { paths: ['/'], load: page(() => import('./pages/fleet/FleetPage.svelte')) },
  { paths: ['/agents'], load: page(() => import('./pages/agents/AgentsPage.svelte')) },
  {
    paths: ['/agents/:uuid', '/agents/:uuid/:tab'],
    load: page(() => import('./pages/agent/AgentPage.svelte')),
  },
  { paths: ['/explore'], load: page(() => import('./pages/explore/ExplorePage.svelte')) },
  { paths: ['/dashboards'], load: page(() => import('./pages/dashboards/DashboardsPage.svelte')) },
  { paths: ['/dashboards/:id'], load: page(() => import('./pages/dashboards/DashboardPage.svelte')) },
  { paths: ['/incidents'], load: page(() => import('./pages/incidents/IncidentsPage.svelte')) },
  { paths: ['/incidents/:id'], load: page(() => import('./pages/incidents/IncidentPage.svelte')) },
  { paths: ['/rules', '/rules/:tab'], load: page(() => import('./pages/rules/RulesPage.svelte')) },
  { paths: ['/jobs'], load: page(() => import('./pages/jobs/JobsPage.svelte')) },
  { paths: ['/jobs/:id'], load: page(() => import('./pages/jobs/JobPage.svelte')) },
  { paths: ['/enrolment'], load: page(() => import('./pages/enrolment/EnrolmentPage.svelte')) },
  {
    paths: ['/operations', '/operations/:tab'],
    load: page(() => import('./pages/operations/OperationsPage.svelte')),
  },
  {
    paths: ['/settings', '/settings/:tab'],
    load: page(() => import('./pages/settings/SettingsPage.svelte')),
  },
  { paths: ['/login'], load: page(() => import('./pages/login/LoginPage.svelte')), isOpen: true },
  { paths: ['/invitation'], load: page(() => import('./pages/login/InvitationPage.svelte')), isOpen: true },
  { paths: ['/password'], load: page(() => import('./pages/login/PasswordPage.svelte')), isOpen: true },
]

export interface Match {
  route: Route
  parameters: Record<string, string>
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** The route of a path, or null if there is no such page. */
export function matching(path: string): Match | null {
  const parts = path.replace(/\/+$/, '').split('/')
  for (const route of routes) {
    for (const wanted of route.paths) {
      const parameters = parametersOf(wanted.replace(/\/$/, '').split('/'), parts)
      if (parameters) return { route, parameters }
    }
  }
  return null
}

function parametersOf(wanted: string[], parts: string[]): Record<string, string> | null {
  if (wanted.length !== parts.length) return null
  const parameters: Record<string, string> = {}
  for (const [at, part] of wanted.entries()) {
    const found = parts[at]!
    if (part.startsWith(':') && found) parameters[part.slice(1)] = decoded(found)
    else if (part !== found) return null
  }
  return parameters
}
