// A dashboard and what somebody is changing in it, until it is saved or discarded.
import { api, contentOf } from '../../api/client'
import type { LayoutContent, LayoutView } from '../../api/schema'
import { SIZES, type Kind, type Panel } from '../../domain/dashboards'
import { arranged, rowsOf } from '../../domain/grid'

/** A panel with a key that stays when others come and go. */
export type BoardPanel = Panel & { key: number }

interface Draft {
  name: string
  shared: boolean
  panels: BoardPanel[]
}

let lastKey = 0

export class Board {
  layout = $state.raw<LayoutView>()
  draft = $state.raw<Draft>()
  isChanged = $state(false)
  #stored = $derived((this.layout?.content.panels ?? []).map((panel) => ({ ...panel, key: ++lastKey })))
  readonly panels: BoardPanel[] = $derived(this.draft?.panels ?? this.#stored)

  edit(): void {
    const { name, shared } = this.layout!
    this.draft = { name, shared, panels: this.#stored }
    this.isChanged = false
  }

  discard(): void {
    this.draft = undefined
    this.isChanged = false
  }

  change(changes: Partial<Draft>): void {
    if (!this.draft) return
    this.draft = { ...this.draft, ...changes }
    this.isChanged = true
  }

  /** Add a panel below the others. */
  add(panel: Panel): void {
    const place = { ...SIZES[panel.kind], x: 0, y: rowsOf(this.panels) }
    this.change({ panels: arranged([...this.panels, { ...panel, ...place, key: ++lastKey }]) })
  }

  /** Bring back a panel that was removed. */
  bringBack(panel: BoardPanel): void {
    if (this.panels.some((one) => one.key === panel.key)) return
    const panels = [...this.panels, panel]
    this.change({ panels: arranged(panels, panels.length - 1) })
  }

  replace(key: number, panel: Panel): void {
    const changed = (one: BoardPanel): BoardPanel => {
      const { x, y, width, height } = one
      return { ...panel, x, y, width, height, key }
    }
    this.change({ panels: this.panels.map((one) => (one.key === key ? changed(one) : one)) })
  }

  remove(key: number): void {
    this.change({ panels: arranged(this.panels.filter((one) => one.key !== key)) })
  }

  /** Store the draft, with what is chosen now as what is chosen at first; throws `Problem`. */
  async save(chosen: Pick<LayoutContent, 'range' | 'agent' | 'device'>): Promise<void> {
    const layout = this.layout!
    const sent = this.draft!
    const { name, shared } = sent
    const params = { path: { layout: layout.layoutId } }
    const body = { name, shared, version: layout.version, content: this.content(chosen) }
    const stored = await contentOf(api.PUT('/api/v1/dashboard-layouts/{layout}', { params, body }))
    if (this.layout?.layoutId !== layout.layoutId) return // another dashboard is shown by now
    this.layout = stored
    if (this.draft === sent) this.discard() // what was changed meanwhile stays
  }

  /** Store what is shown as another dashboard of one's own; throws `Problem`. */
  async saveCopy(name: string, chosen: Pick<LayoutContent, 'range' | 'agent' | 'device'>): Promise<string> {
    const body = { name, content: this.content(chosen) }
    const made = await contentOf(api.POST('/api/v1/dashboard-layouts', { body }))
    this.discard()
    return made.layoutId
  }

  content(chosen: Pick<LayoutContent, 'range' | 'agent' | 'device'>): LayoutContent {
    return {
      ...chosen,
      // In the order in which they are read, for who reads them one by one.
      panels: this.panels
        .toSorted((a, b) => a.y - b.y || a.x - b.x)
        .map(({ key, ...panel }): Panel => {
          void key
          return panel
        }),
    }
  }
}

/** A new panel of a kind, without anything to show yet. */
export function emptyPanel(kind: Kind): Panel {
  const place = { x: 0, y: 0, ...SIZES[kind], title: '' }
  if (kind === 'text') return { kind, ...place, text: '' }
  if (kind === 'agents') return { kind, ...place, agents: [] }
  if (kind === 'gauge') return { kind, ...place, series: [], low: 0, high: 100 }
  return { kind, ...place, series: [] }
}
