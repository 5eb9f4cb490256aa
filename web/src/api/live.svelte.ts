// Live updates for this tab: through the shared worker, or, in browsers without one, a connection of its own.
import workerUrl from './live-worker.ts?worker&url'
import { LiveConnection, type LiveStatus } from './live-connection'
import type { FromWorker, ToWorker } from './live-messages'
import type { Overview } from './schema'
import { accessToken } from './session.svelte'

const HERE = 30_000 // ms between two signs of life of this tab to the worker

export interface LiveEvents {
  snapshot: { agents: AgentSnapshot[]; more: boolean }
  state: { agentUuid: string; at: string; state: Record<string, unknown> }
  metrics: { agentUuid: string; at: string; metrics: Record<string, unknown> }
  readings: { agentUuid: string; count: number; readings: LiveReading[] }
  logs: { agentUuid: string; count: number; logs: LiveLog[] }
  events: LiveNews
  overview: Overview
}

export interface AgentSnapshot {
  agentUuid: string
  name: string
  status: string
  since: string | null
  lastSeen: string | null
}

export interface LiveReading {
  time: string
  metric_name: string
  value: number | null
  quality: string
  unit: string | null
}

export interface LiveLog {
  timestamp: string
  service: string
  level: string
  message: string
}

export type LiveNews =
  | { type: 'presence'; agent: string; status: string; at: string }
  | { type: 'event'; agent: string; event: string; severity: string }
  | {
      type: 'incident'
      event: string
      agent: string | null
      incidentId: string
      title: string
      severity: string
      status: string
    }

type Listener<K extends keyof LiveEvents> = (data: LiveEvents[K]) => void

export const live = $state<LiveStatus & { overview: Overview | null }>({
  isLive: false,
  since: Date.now(),
  overview: null,
})

const listeners = new Map<string, Set<(data: never) => void>>()
const returns = new Set<() => unknown>()
const followed = new Map<string, number>()
let post: ((message: ToWorker) => void) | null = null

/** Forget what was shown to somebody else, and listen as who is logged in now. */
export function resetLive(): void {
  live.overview = null
  post?.({ reset: true })
}

/** Connect this tab; called once somebody is logged in. */
export function startLive(): void {
  if (post) return post({ retry: true })
  if (typeof SharedWorker === 'undefined') {
    const connection = new LiveConnection(
      accessTokenOrNull,
      ({ name, data }) => hear({ event: name, data: JSON.parse(data) as unknown }),
      (status) => hear({ status }),
    )
    post = (message) => {
      if ('follow' in message) connection.follow(message.follow)
      else if ('retry' in message) connection.retry()
      else if ('reset' in message) connection.reset()
    }
  } else {
    const worker = new SharedWorker(trusted(workerUrl), { type: 'module' })
    worker.port.onmessage = ({ data }: MessageEvent<FromWorker>) => hear(data)
    post = (message) => worker.port.postMessage(message)
    setInterval(() => post?.({ here: true }), HERE)
    addEventListener('pagehide', () => post?.({ leave: true }))
    addEventListener('pageshow', () => tellFollowed())
  }
  addEventListener('online', () => post?.({ retry: true }))
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') post?.({ retry: true })
  })
  tellFollowed()
}

/** The address of the worker's script as the content security policy wants it, in browsers that know trusted types. */
function trusted(url: string): string {
  const types = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes
  const policy = types?.createPolicy('iotistica-worker', {
    createScriptURL: (script) => (script === url ? script : ''),
  })
  return policy ? policy.createScriptURL(url) : url
}

/** Not yet in TypeScript's library. */
interface TrustedTypes {
  createPolicy(
    name: string,
    rules: { createScriptURL: (url: string) => string },
  ): { createScriptURL: (url: string) => string }
}

/** Call a function at each event of a kind; returns the function that ends that. */
export function onLive<K extends keyof LiveEvents>(kind: K, listener: Listener<K>): () => void {
  const found = listeners.get(kind) ?? new Set()
  listeners.set(kind, found.add(listener as (data: never) => void))
  return () => found.delete(listener as (data: never) => void)
}

/** Call a function whenever the connection is back, since what happened meanwhile was not heard. */
export function onReturn(work: () => unknown): () => void {
  returns.add(work)
  return () => returns.delete(work)
}

/** Receive state, metrics, readings and logs of an agent, too; returns the function that ends that. */
export function followAgent(uuid: string): () => void {
  followed.set(uuid, (followed.get(uuid) ?? 0) + 1)
  tellFollowed()
  return () => {
    const left = (followed.get(uuid) ?? 1) - 1
    if (left) followed.set(uuid, left)
    else followed.delete(uuid)
    tellFollowed()
  }
}

let isTelling = false

/** Tell once what is followed, since a page often lets go of an agent and takes it again at once. */
function tellFollowed(): void {
  if (isTelling) return
  isTelling = true
  queueMicrotask(() => {
    isTelling = false
    post?.({ follow: [...followed.keys()] })
  })
}

async function accessTokenOrNull(): Promise<string | null> {
  try {
    return await accessToken()
  } catch {
    return null
  }
}

function hear(message: FromWorker): void {
  if ('status' in message) {
    const isBack = message.status.isLive && !live.isLive
    Object.assign(live, message.status)
    if (isBack) for (const work of returns) work()
  } else if ('tokenWanted' in message) void accessTokenOrNull().then((token) => post?.({ token }))
  else {
    if (message.event === 'overview') live.overview = message.data as Overview
    for (const listener of listeners.get(message.event) ?? []) listener(message.data as never)
  }
}
