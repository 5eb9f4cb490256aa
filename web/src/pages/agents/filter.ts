// The filter of the list of agents, as it stands in the address.
import type { paths } from '../../api/schema'

export type AgentQuery = NonNullable<paths['/api/v1/agents']['get']['parameters']['query']>

export const FIELDS = ['search', 'selector', 'status', 'failing', 'filter', 'fleet', 'sort', 'order'] as const
export type Filter = Partial<Record<(typeof FIELDS)[number], string>>

export function filterOf(parameters: URLSearchParams): Filter {
  return Object.fromEntries(
    FIELDS.flatMap((name) => (parameters.get(name) ? [[name, parameters.get(name)]] : [])),
  )
}

/** The parameters of the API for a filter; by default the agents are sorted by name. */
export function queryOf(filter: Filter): AgentQuery {
  return { sort: 'name', ...filter } as unknown as AgentQuery
}

const KEY = 'iotistica-agent-filters'

export interface SavedFilter {
  name: string
  query: string
}

export function savedFilters(): SavedFilter[] {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? '[]') as SavedFilter[]
  } catch {
    return []
  }
}

export function saveFilters(filters: SavedFilter[]): void {
  localStorage.setItem(KEY, JSON.stringify(filters))
}
