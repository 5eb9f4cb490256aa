// What of the state of a tenant needs somebody, the most urgent first.
import type { Overview } from '../api/schema'

export interface Trouble {
  kind:
    | 'critical'
    | 'alarm'
    | 'warning'
    | 'waiting'
    | 'spooled'
    | 'offline'
    | 'failing'
    | 'disk'
    | 'silent'
    | 'dead'
  tone: 'critical' | 'warning'
  /** How many, or for `waiting` seconds and for `disk` days. */
  number: number
  /** The name of an alarm. */
  name?: string
  href: string
}

const LATE = 60 // seconds that a message can wait before somebody should know
const SOON = 30 // days until the disk is full

export function troubles(overview: Overview): Trouble[] {
  const { agents, incidents, ingestion, storage } = overview
  const found: Trouble[] = [
    { kind: 'critical', tone: 'critical', number: incidents.critical, href: '/incidents?severity=critical' },
    ...overview.alarms.map((name): Trouble => ({
      kind: 'alarm',
      tone: 'critical',
      number: 1,
      name,
      href: '/operations',
    })),
    { kind: 'offline', tone: 'critical', number: agents.offline, href: '/agents?status=offline' },
    {
      kind: 'waiting',
      tone: 'critical',
      number: ingestion.oldestSeconds > LATE ? ingestion.oldestSeconds : 0,
      href: '/operations',
    },
    { kind: 'spooled', tone: 'warning', number: ingestion.spooledMessages, href: '/operations' },
    { kind: 'failing', tone: 'warning', number: agents.failing, href: '/agents?failing=true&filter=active' },
    { kind: 'warning', tone: 'warning', number: incidents.warning, href: '/incidents?severity=warning' },
    { kind: 'silent', tone: 'warning', number: agents.silent, href: '/agents?status=silent' },
    { kind: 'dead', tone: 'warning', number: ingestion.deadLetters, href: '/operations/dead-letters' },
  ]
  const days = storage?.daysLeft
  if (typeof days === 'number' && days < SOON && storage?.full !== 'budget') {
    found.push({
      kind: 'disk',
      tone: days < 3 ? 'critical' : 'warning',
      number: days,
      href: '/operations/storage',
    })
  }
  const rank = { critical: 0, warning: 1 }
  return found
    .filter((one) => one.number > 0 || one.kind === 'disk')
    .sort((a, b) => rank[a.tone] - rank[b.tone])
}
