// The address of the page, and how it changes without loading the page anew.

import { m } from '../messages'

export const address = $state({ path: location.pathname, query: location.search, hash: location.hash })

function read(): void {
  Object.assign(address, { path: location.pathname, query: location.search, hash: location.hash })
}

let guard: (() => boolean) | null = null

/** Ask before the page is left while `isDirty` says that something would be lost; returns what ends that. */
export function guardLeaving(isDirty: () => boolean): () => void {
  const own = (guard = isDirty)
  const beforeUnload = (event: BeforeUnloadEvent): void => {
    if (own()) event.preventDefault()
  }
  addEventListener('beforeunload', beforeUnload)
  return () => {
    if (guard === own) guard = null
    removeEventListener('beforeunload', beforeUnload)
  }
}

/** Go to another path of the dashboard; `replace` leaves no step in the browser's history. */
export function go(to: string, { replace = false, keepScroll = false } = {}): void {
  const url = new URL(to, location.href)
  if (url.href === location.href) return
  if (url.pathname !== location.pathname && guard?.() && !confirm(m.common.leave)) return
  history[replace ? 'replaceState' : 'pushState'](null, '', url)
  read()
  if (!replace && !keepScroll) scrollTo(0, 0)
}

/** The parameters of the address. */
export function parameters(): URLSearchParams {
  return new URLSearchParams(address.query)
}

/** Change parameters of the address, so that a link shows the same; empty ones are left out. */
export function setParameters(
  changes: Record<string, string | null | undefined>,
  { push = false } = {},
): void {
  const query = parameters()
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value)
    else query.delete(name)
  }
  const text = query.toString()
  go(address.path + (text ? `?${text}` : ''), { replace: !push, keepScroll: true })
}

/** A path of the dashboard that somebody was sent to, or `/` for anything that leads elsewhere. */
export function ownPath(next: string | null): string {
  if (!next) return '/'
  try {
    const url = new URL(next, location.origin)
    const isOwn = url.origin === location.origin && next.startsWith('/') && !/^\/[/\\]/.test(next)
    return isOwn ? url.pathname + url.search : '/'
  } catch {
    return '/'
  }
}

function follow(event: MouseEvent): void {
  if (
    event.defaultPrevented ||
    event.button ||
    event.metaKey ||
    event.ctrlKey ||
    event.shiftKey ||
    event.altKey
  )
    return
  const link = (event.target as Element).closest('a')
  if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return
  if (/^\/(api|schema|health|metrics)(\/|$)/.test(link.pathname)) return
  event.preventDefault()
  go(link.href)
}

addEventListener('popstate', () => {
  if (location.pathname !== address.path && guard?.() && !confirm(m.common.leave)) {
    history.pushState(null, '', address.path + address.query + address.hash)
  } else read()
})
document.addEventListener('click', follow)
