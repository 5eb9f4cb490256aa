// The health of the process that serves this page, read again every few seconds.
import { Problem, problemOf, UNREACHABLE } from '../../api/problem'
import { resource, type Resource } from '../../components/resource.svelte'

export interface Health {
  status: string
  version: string
  roles: string[]
  database: Part
  redis?: Part
  broker?: Part
  spools?: Record<string, { messages: number; bytes: number; cap: number; error?: string }>
  workers?: { running: number; least: number; most: number }
  storage?: {
    readings: number
    rollups: number
    free: number | null
    bytesADay: number
    daysLeft: number | null
    full: string | null
  }
  tasks?: Record<string, { lastSuccess: string | null; failures?: number }>
  alarms?: Record<string, string>
}

export interface Part {
  ok: boolean
  error?: string
  saturation?: number
  breaker?: string
}

const AGAIN = 5000 // ms

export function health(): Resource<Health> {
  const found = resource(async (signal) => {
    let response: Response
    try {
      response = await fetch('/health', { signal })
    } catch {
      throw new Problem(UNREACHABLE, '', '')
    }
    if (!response.ok) throw await problemOf(response)
    return (await response.json()) as Health
  })
  $effect(() => {
    const timer = setInterval(() => void found.reload(), AGAIN)
    return () => clearInterval(timer)
  })
  return found
}
