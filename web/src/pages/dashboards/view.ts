// What all panels of a dashboard need to know.
import type { LatestValue, LatestValues } from '../../api/latest-values.svelte'
import { deviceOf, resolved, type Choice, type PanelSeries } from '../../domain/dashboards'
import { measured } from '../../domain/numbers'
import type { Span } from '../../domain/ranges'
import { visible } from '../../domain/text'

export interface View {
  choice: Choice
  values: LatestValues
  /** Names of agents by UUID, as far as they are known. */
  names: Map<string, string>
  span: Span
  zone: string
  /** Whether what arrives is shown as it arrives. */
  isFollowing: boolean
  onrange: (range: { from: number; to: number }) => void
}

/** Whether a series is chosen and has readings. */
export function isThere(view: View, series: PanelSeries): boolean {
  const found = resolved(series, view.choice)
  return found !== null && view.values.mayHave(found.agent, found.metric)
}

/** The newest value of a series of a panel; undefined if there is none, or nothing is chosen. */
export function latestOf(view: View, series: PanelSeries): LatestValue | undefined {
  const found = resolved(series, view.choice)
  return found ? view.values.of(found.agent, found.metric) : undefined
}

/** A value as it is shown: its text, or its number. */
export function shownValue(latest: LatestValue | undefined): string {
  return latest === undefined || latest.text === null ? measured(latest?.value) : visible(latest.text)
}

/** The name of a series; with that of its agent where a panel shows several. */
export function labelOf(view: View, series: PanelSeries, isWithAgent = !!series.agent): string {
  const found = resolved(series, view.choice)
  const metric = found?.metric ?? series.metric
  const agent = found && isWithAgent ? view.names.get(found.agent) : undefined
  return visible(agent ? `${agent} · ${metric}` : metric)
}

/** The name of a series without its device, for panels with little room. */
export function shortLabelOf(view: View, series: PanelSeries): string {
  const metric = resolved(series, view.choice)?.metric ?? series.metric
  return visible(metric.slice((deviceOf(metric)?.length ?? -1) + 1))
}

/** Whether the series of a panel are of several agents, so that their labels name them. */
export function hasSeveralAgents(view: View, series: PanelSeries[]): boolean {
  return new Set(series.map((one) => one.agent ?? view.choice.agent)).size > 1
}

/** The address of the chart of some series. */
export function exploreLink(view: View, series: PanelSeries[]): string {
  const keys = series.flatMap((one) => {
    const found = resolved(one, view.choice)
    return found ? [`${found.agent}/${found.metric}`] : []
  })
  const range: Record<string, string> = view.span.relative
    ? { range: view.span.relative }
    : { from: new Date(view.span.from).toISOString(), to: new Date(view.span.to).toISOString() }
  return `/explore?${new URLSearchParams({ series: keys.join('|'), ...range })}`
}
