// What panels of a dashboard show: their series with what is chosen filled in, and a first dashboard for an agent.
import type { CatalogEntry, LayoutContent } from '../api/schema'
import { arranged, COLUMNS } from './grid'

export type Panel = NonNullable<LayoutContent['panels']>[number]
export type Kind = Panel['kind']
export type SeriesOf<K extends Kind> = Extract<Panel, { kind: K }>
export interface PanelSeries {
  agent?: string | null
  metric: string
}

/** What is chosen on a dashboard: the agent and the device that its panels leave open. */
export interface Choice {
  agent: string | null
  device: string | null
}

export const DEVICE = '$device'
export const SIZES: Record<Kind, { width: number; height: number }> = {
  chart: { width: 6, height: 6 },
  value: { width: 2, height: 2 },
  gauge: { width: 3, height: 4 },
  table: { width: 4, height: 6 },
  states: { width: 6, height: 3 },
  agents: { width: 4, height: 3 },
  text: { width: 3, height: 2 },
}

/** The series of a panel; none for kinds that have none. */
export function seriesOf(panel: Panel): PanelSeries[] {
  return 'series' in panel ? panel.series : []
}

/** A series with what is chosen filled in; null while that is not chosen. */
export function resolved(series: PanelSeries, choice: Choice): { agent: string; metric: string } | null {
  const agent = series.agent ?? choice.agent
  if (!agent) return null
  if (!series.metric.startsWith(DEVICE)) return { agent, metric: series.metric }
  return choice.device ? { agent, metric: choice.device + series.metric.slice(DEVICE.length) } : null
}

/** The device in the full name of a series: what is before its first dot; null if it has none. */
export function deviceOf(metric: string): string | null {
  const end = metric.indexOf('.')
  return end > 0 ? metric.slice(0, end) : null
}

/** How a device stands in the full names of its series. */
export function devicePart(name: string): string {
  return name.replaceAll('.', '_')
}

/** A series that follows the chosen device, if its name has one. */
export function withoutDevice(metric: string): string {
  const device = deviceOf(metric)
  return device === null ? metric : DEVICE + metric.slice(device.length)
}

export function needsAgent(panels: Panel[]): boolean {
  return panels.some(
    (panel) =>
      seriesOf(panel).some((series) => !series.agent) ||
      (panel.kind === 'agents' && panel.agents.some((agent) => !agent)),
  )
}

export function needsDevice(panels: Panel[]): boolean {
  return panels.some((panel) => seriesOf(panel).some((series) => series.metric.startsWith(DEVICE)))
}

/** The agents that a dashboard shows. */
export function agentsOf(panels: Panel[], choice: Choice): string[] {
  const named = panels.flatMap((panel) => [
    ...seriesOf(panel).map((series) => series.agent ?? choice.agent),
    ...(panel.kind === 'agents' ? panel.agents.map((agent) => agent ?? choice.agent) : []),
  ])
  return [...new Set(named.filter((agent) => agent !== null))]
}

const VALUES = 4 // series that get a panel of their own
const LINES = 8 // in one chart
const ROWS = 100 // of a table
const ROW = 0.6 // rows of the grid for each row of a table
const HIGHEST = 6 // rows of the grid for a table
const CHARTS = 6

/** The latest value of a series, as far as the choice of a panel needs it. */
export interface Sample {
  name: string
  value: number | null
  text: string | null
}

/** A dashboard for what one agent measures; it shows any other agent of the same kind, too. */
export function dashboardFor(agent: string, catalog: CatalogEntry[], samples: Sample[]): LayoutContent {
  const known = new Map(samples.map((sample) => [sample.name, sample]))
  const isState = (entry: CatalogEntry): boolean => {
    const sample = known.get(entry.metric_name)
    return sample !== undefined && (sample.text !== null || (!entry.unit && isSwitch(sample.value)))
  }
  const states = catalog.filter(isState)
  // What a device measures in a unit comes before what the agent says of itself.
  const rank = (entry: CatalogEntry): number => (entry.device_name ? 0 : 2) + (entry.unit ? 0 : 1)
  const measured = catalog.filter((entry) => !isState(entry)).sort((a, b) => rank(a) - rank(b))
  // The device of an agent that has only one is left open, since that of another agent has another name.
  const devices = new Set(catalog.flatMap((entry) => entry.device_name ?? []).map(devicePart))
  const device = devices.size === 1 ? [...devices][0]! : null
  const nameOf = (entry: CatalogEntry): string =>
    device !== null && entry.device_name ? withoutDevice(entry.metric_name) : entry.metric_name
  const series = (entries: CatalogEntry[]): PanelSeries[] =>
    entries.map((entry) => ({ agent: null, metric: nameOf(entry) }))
  const byUnit = Map.groupBy(measured, (entry) => entry.unit ?? '')
  const panels: Panel[] = []
  let top = 0
  const row = (added: Panel[]): void => {
    panels.push(...added)
    top += Math.max(0, ...added.map((panel) => panel.height))
  }
  const values = measured.slice(0, VALUES)
  const left = COLUMNS - values.length * SIZES.value.width
  row([
    { kind: 'agents', x: 0, y: top, width: left, height: 2, title: '', agents: [null] },
    ...values.map((entry, at): Panel => {
      const place = { x: left + at * SIZES.value.width, y: top, ...SIZES.value }
      return { kind: 'value', ...place, title: '', series: series([entry]) }
    }),
  ])
  const charts = [...byUnit.values()].slice(0, CHARTS)
  const width = COLUMNS / Math.max(1, Math.min(3, charts.length))
  for (const [at, entries] of charts.entries()) {
    const place = { x: (at % 3) * width, y: top + Math.floor(at / 3) * 4, width, height: 4 }
    const title = entries.length > 1 ? (entries[0]!.unit ?? '') : ''
    panels.push({ kind: 'chart', ...place, title, series: series(entries.slice(0, LINES)) })
  }
  top += Math.ceil(charts.length / 3) * 4
  if (states.length) {
    const some = states.slice(0, LINES)
    row([
      {
        kind: 'states',
        x: 0,
        y: top,
        width: COLUMNS,
        height: Math.max(2, some.length + 1),
        title: '',
        series: series(some),
      },
    ])
  }
  if (catalog.length) {
    const rows = series(catalog.slice(0, ROWS))
    const height = Math.min(HIGHEST, Math.ceil(rows.length * ROW) + 1)
    row([{ kind: 'table', x: 0, y: top, width: COLUMNS, height, title: '', series: rows }])
  }
  return { range: '1h', agent, device, panels: arranged(panels) }
}

function isSwitch(value: number | null): boolean {
  return value === 0 || value === 1
}
