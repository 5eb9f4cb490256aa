// The difference between two JSON documents, as a list of changed paths.

export type Change = {
  path: string
  kind: 'added' | 'removed' | 'changed'
  before?: unknown
  after?: unknown
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What changes from one document to the other. Lists of objects with a `name`, `uuid` or id are matched by it. */
export function changes(before: unknown, after: unknown, path = ''): Change[] {
  if (Object.is(before, after)) return []
  if (isObject(before) && isObject(after)) {
    const names = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    return names.flatMap((name) => change(before, after, name, path ? `${path}.${name}` : name))
  }
  if (Array.isArray(before) && Array.isArray(after)) {
    const old = keyed(before)
    const now = keyed(after)
    const names = [...new Set([...Object.keys(old), ...Object.keys(now)])]
    return names.flatMap((name) => change(old, now, name, `${path}[${name}]`))
  }
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ path, kind: 'changed', before, after }]
}

function change(
  before: Record<string, unknown>,
  after: Record<string, unknown>,
  name: string,
  path: string,
): Change[] {
  if (!(name in before)) return [{ path, kind: 'added', after: after[name] }]
  if (!(name in after)) return [{ path, kind: 'removed', before: before[name] }]
  return changes(before[name], after[name], path)
}

function keyed(list: unknown[]): Record<string, unknown> {
  const keys = list.map(keyOf)
  // Names that stand for several entries cannot match them: then their places do.
  if (new Set(keys).size < list.length) return { ...list }
  return Object.fromEntries(list.map((one, at) => [keyOf(one) ?? String(at), one]))
}

function keyOf(one: unknown): string | null {
  if (!isObject(one)) return null
  const key = one.name ?? one.uuid ?? one.serviceId ?? one.appId
  return typeof key === 'string' || typeof key === 'number' ? String(key) : null
}
