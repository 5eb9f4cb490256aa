// What tabs and the shared worker say to each other about the live updates.
import type { LiveStatus } from './live-connection'

export type ToWorker =
  | { follow: string[] }
  | { token: string | null }
  | { retry: true }
  | { reset: true }
  | { here: true }
  | { leave: true }

export type FromWorker = { event: string; data: unknown } | { status: LiveStatus } | { tokenWanted: true }
