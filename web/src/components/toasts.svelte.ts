// Short messages about what was just done, with a way to undo it where there is one.
import { describe } from './describe'

export interface Toast {
  id: number
  text: string
  kind: 'done' | 'failed'
  undo?: () => unknown
}

const SECONDS = { done: 6, failed: 12 }
let last = 0

export const toasts = $state<Toast[]>([])

export function say(
  text: string,
  { kind = 'done', undo }: { kind?: Toast['kind']; undo?: () => unknown } = {},
): void {
  const toast: Toast = { id: ++last, text, kind, undo }
  toasts.push(toast)
  setTimeout(() => dismiss(toast.id), SECONDS[kind] * 1000)
}

export function dismiss(id: number): void {
  const at = toasts.findIndex((toast) => toast.id === id)
  if (at >= 0) toasts.splice(at, 1)
}

/** Do something, and say that it is done or why it failed; returns whether it is done. */
export async function attempt(
  work: () => Promise<unknown>,
  done?: string,
  undo?: () => unknown,
): Promise<boolean> {
  try {
    await work()
  } catch (error) {
    say(describe(error), { kind: 'failed' })
    return false
  }
  if (done) say(done, { undo })
  return true
}
