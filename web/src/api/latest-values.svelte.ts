// The newest value of each series of some agents, and how it went since the page was opened.
import { untrack } from 'svelte'
import { resource } from '../components/resource.svelte'
import { api, contentOf } from './client'
import { onLive, onReturn, type LiveReading } from './live.svelte'

const KEPT = 60 // points of each series
const SERIES = 1000 // series that are shown

export interface LatestValue {
  agent: string
  name: string
  value: number | null
  text: string | null
  unit: string | null
  quality: string
  /** Milliseconds since the epoch. */
  time: number
  points: { at: number; value: number | null }[]
}

export class LatestValues {
  readonly rows: LatestValue[] = $derived.by(() =>
    [...this.#values.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true })),
  )
  #values = $state.raw(new Map<string, LatestValue>())
  /** Agents that have more series than are read. */
  #cut = $state.raw(new Set<string>())
  /** The names of the series that are known; changes only when one is added. */
  #names = $state.raw(new Set<string>())
  #waiting: { agent: string; readings: LiveReading[] }[] = []
  #frame = 0
  readonly first

  constructor(agents: () => string[]) {
    this.first = resource(
      async (signal) => {
        const counts = agents().map(async (agent) => {
          const params = { path: { agent }, query: { limit: SERIES } }
          const latest = await contentOf(api.GET('/api/v1/readings/{agent}/latest', { params, signal }))
          this.#take([{ agent, readings: latest.readings as unknown as LiveReading[] }])
          if (latest.count >= SERIES) this.#cut = new Set([...this.#cut, agent])
          return latest.count
        })
        // An agent that is gone does not hide the others.
        const read = await Promise.allSettled(counts)
        const failed = read.find((one) => one.status === 'rejected')
        if (failed && read.every((one) => one.status === 'rejected')) throw failed.reason
        return read.reduce((sum, one) => sum + (one.status === 'fulfilled' ? one.value : 0), 0)
      },
      () => agents(),
    )
    const wanted = $derived(agents().join())
    $effect(() => {
      const own = new Set(wanted.split(','))
      const end = onLive('readings', (news) => {
        if (!own.has(news.agentUuid)) return
        this.#waiting.push({ agent: news.agentUuid, readings: news.readings })
        // Many messages of one moment are drawn once.
        this.#frame ||= requestAnimationFrame(() => {
          this.#frame = 0
          this.#take(this.#waiting.splice(0))
        })
      })
      const endReturns = onReturn(() => this.first.reload())
      return () => {
        end()
        endReturns()
        cancelAnimationFrame(this.#frame)
        this.#frame = 0
        this.#waiting = []
        this.#values = new Map()
        this.#names = new Set()
        this.#cut = new Set()
      }
    })
  }

  /** The newest value of one series. */
  of(agent: string, name: string): LatestValue | undefined {
    return this.#values.get(`${agent}/${name}`)
  }

  /** Whether an agent has such a series, or so many that it may. */
  mayHave(agent: string, name: string): boolean {
    return this.#names.has(`${agent}/${name}`) || this.#cut.has(agent)
  }

  #take(messages: { agent: string; readings: LiveReading[] }[]): void {
    const values = new Map(this.#values)
    for (const { agent, readings } of messages) {
      for (const reading of readings) {
        const key = `${agent}/${reading.metric_name}`
        const known = values.get(key)
        const time = Date.parse(reading.time)
        // Messages can come in another order than they were measured in.
        if (!known || known.time < time) values.set(key, valueOf(agent, reading, known))
      }
    }
    this.#values = values
    if (values.size !== untrack(() => this.#names.size)) this.#names = new Set(values.keys())
  }
}

function valueOf(agent: string, reading: LiveReading, known: LatestValue | undefined): LatestValue {
  const time = Date.parse(reading.time)
  const isUsable = reading.quality === 'good' || reading.quality === 'uncertain'
  return {
    agent,
    name: reading.metric_name,
    value: reading.value,
    text: textOf(reading),
    unit: reading.unit,
    quality: reading.quality,
    time,
    points: [...(known?.points ?? []).slice(1 - KEPT), { at: time, value: isUsable ? reading.value : null }],
  }
}

/** The text of a reading that is none of a number; null for numbers. */
export function textOf(reading: object): string | null {
  const extra = (reading as { extra?: Record<string, unknown> }).extra
  return typeof extra?.text === 'string' ? extra.text : null
}
