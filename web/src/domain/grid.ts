// Panels on a grid of columns: where each is when one was moved, without gaps above and without overlaps.

export interface Place {
  x: number
  y: number
  width: number
  height: number
}

export const COLUMNS = 12
export const MOST_PANELS = 60
const TALLEST = 40 // cells

/** The panels with each as far up as it goes; `first` is the index of the one that others make way for. */
export function arranged<T extends Place>(panels: T[], first = -1): T[] {
  // At the same height, what was moved goes above the others.
  const height = (at: number): number => panels[at]!.y - (at === first ? 0.5 : 0)
  const order = panels.map((_, at) => at).sort((a, b) => height(a) - height(b) || panels[a]!.x - panels[b]!.x)
  const placed = new Map<number, T>()
  for (const at of order) {
    const panel = panels[at]!
    const above = [...placed.values()].filter((other) => isAbove(other, panel))
    placed.set(at, { ...panel, y: Math.max(0, ...above.map((other) => other.y + other.height)) })
  }
  return panels.map((_, at) => placed.get(at)!)
}

function isAbove(one: Place, other: Place): boolean {
  return one.x < other.x + other.width && other.x < one.x + one.width
}

/** The panels after one was moved or given another size, within the grid. */
export function placed<T extends Place>(panels: T[], index: number, wanted: Partial<Place>): T[] {
  const old = panels[index]!
  const width = within(wanted.width ?? old.width, 1, COLUMNS)
  const height = within(wanted.height ?? old.height, 1, TALLEST)
  const x = within(wanted.x ?? old.x, 0, COLUMNS - width)
  const y = Math.max(0, wanted.y ?? old.y)
  return arranged(
    panels.map((panel, at) => (at === index ? { ...panel, x, y, width, height } : panel)),
    index,
  )
}

/** The indices of the panels as they are read: by rows, and from left to right. */
export function readingOrder(panels: Place[]): number[] {
  return panels.map((_, at) => at).sort((a, b) => panels[a]!.y - panels[b]!.y || panels[a]!.x - panels[b]!.x)
}

/** The panels after one has changed places with the one that is read before it (`step` -1) or after it (1). */
export function exchanged<T extends Place>(panels: T[], index: number, step: -1 | 1): T[] {
  const order = readingOrder(panels)
  const other = order[order.indexOf(index) + step]
  if (other === undefined) return panels
  const at = (panel: T, { x, y }: Place): T => ({ ...panel, x: Math.min(x, COLUMNS - panel.width), y })
  const [one, two] = [panels[index]!, panels[other]!]
  const swapped = panels.map((panel, which) =>
    which === index ? at(one, two) : which === other ? at(two, one) : panel,
  )
  return arranged(swapped, step < 0 ? index : other)
}

/** The number of rows that the panels take. */
export function rowsOf(panels: Place[]): number {
  return Math.max(0, ...panels.map((panel) => panel.y + panel.height))
}

function within(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, Math.round(value)))
}
