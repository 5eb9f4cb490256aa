// Sorts the agents of the map into groups, the groups with trouble first.
import type { AgentMap } from '../api/schema'

export interface Tile {
  uuid: string
  name: string
  status: string
  since: string | null
  incident: string | null
  /** How many of its devices and services it reports as failing. */
  faults: number
}

export interface TileGroup {
  name: string
  tiles: Tile[]
  /** How many of the tiles have each status. */
  counts: Record<string, number>
}

export type Grouping = 'presence' | 'incident' | 'fleet' | 'tag'

const STATUSES = ['offline', 'silent', 'new', 'online']
const SEVERITIES = ['critical', 'warning', 'info']

/** The groups of the map; `nameOf` says how the group of a key is called, null being the group of those without one. */
export function grouped(map: AgentMap, by: Grouping, nameOf: (key: string | null) => string): TileGroup[] {
  const keys = { presence: map.status, incident: map.incident, fleet: map.fleet, tag: map.tag }[by]
  const groups = new Map<string | null, TileGroup>()
  for (const [at, uuid] of map.uuid.entries()) {
    const key = keys[at] ?? null
    let group = groups.get(key)
    if (!group) groups.set(key, (group = { name: nameOf(key), tiles: [], counts: {} }))
    const status = map.status[at]!
    group.tiles.push({
      ...{ uuid, status, name: map.name[at]! },
      ...{ since: map.since[at] ?? null, incident: map.incident[at] ?? null, faults: map.faults[at] ?? 0 },
    })
    group.counts[status] = (group.counts[status] ?? 0) + 1
  }
  const order = [...groups.entries()].sort(([a, one], [b, other]) => {
    if (by === 'presence') return STATUSES.indexOf(a ?? '') - STATUSES.indexOf(b ?? '')
    if (by === 'incident') return rank(SEVERITIES, a) - rank(SEVERITIES, b)
    return troubled(other) - troubled(one) || one.name.localeCompare(other.name, undefined, { numeric: true })
  })
  return order.map(([, group]) => group)
}

function rank(words: string[], word: string | null): number {
  return word === null ? words.length : words.indexOf(word)
}

function troubled(group: TileGroup): number {
  return (group.counts.offline ?? 0) + (group.counts.silent ?? 0)
}

/** The edge of a tile in px, by how many there are, so that the map of any fleet fits a screen. */
export function tileSize(agents: number): number {
  if (agents <= 60) return 34
  if (agents <= 300) return 24
  if (agents <= 1500) return 15
  if (agents <= 4000) return 11
  return 8
}
