// Moves a chart along the time: with Shift and the pointer, with two fingers on a touchpad, or with the wheel.
import type uPlot from 'uplot'

const SETTLED = 250 // ms without movement after which the data of the new range is read

/** Let somebody pan a chart; `onend` gets the new range in ms since the epoch. Returns the function that ends it. */
export function panBy(chart: uPlot, onend: (from: number, to: number) => void): () => void {
  const { over } = chart
  let last: number | null = null
  let timer: ReturnType<typeof setTimeout> | undefined

  function move(pixels: number): void {
    const { min, max } = chart.scales.x!
    if (min == null || max == null) return
    const by = (-pixels / over.clientWidth) * (max - min)
    chart.setScale('x', { min: min + by, max: max + by })
    clearTimeout(timer)
    timer = setTimeout(() => {
      const x = chart.scales.x!
      if (x.min != null && x.max != null) onend(x.min * 1000, x.max * 1000)
    }, SETTLED)
  }

  function down(event: PointerEvent): void {
    if (!event.shiftKey && event.pointerType === 'mouse') return
    last = event.clientX
    over.setPointerCapture(event.pointerId)
    event.stopImmediatePropagation()
  }

  function drag(event: PointerEvent): void {
    if (last === null) return
    move(event.clientX - last)
    last = event.clientX
  }

  function up(): void {
    last = null
  }

  /** uPlot begins its selection at `mousedown`. */
  function stopSelection(event: MouseEvent): void {
    if (last !== null) event.stopImmediatePropagation()
  }

  function wheel(event: WheelEvent): void {
    if (Math.abs(event.deltaX) <= Math.abs(event.deltaY) && !event.shiftKey) return
    event.preventDefault()
    move(-(event.deltaX || event.deltaY))
  }

  over.addEventListener('pointerdown', down, true)
  over.addEventListener('mousedown', stopSelection, true)
  over.addEventListener('pointermove', drag)
  over.addEventListener('pointerup', up)
  over.addEventListener('pointercancel', up)
  over.addEventListener('wheel', wheel, { passive: false })
  return () => clearTimeout(timer)
}
