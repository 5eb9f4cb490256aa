// The pages that the navigation and the command palette offer.
import Activity from '@lucide/svelte/icons/activity'
import BellRing from '@lucide/svelte/icons/bell-ring'
import ChartLine from '@lucide/svelte/icons/chart-line'
import CirclePlus from '@lucide/svelte/icons/circle-plus'
import LayoutDashboard from '@lucide/svelte/icons/layout-dashboard'
import ListChecks from '@lucide/svelte/icons/list-checks'
import Router from '@lucide/svelte/icons/router'
import Settings from '@lucide/svelte/icons/settings'
import ShieldAlert from '@lucide/svelte/icons/shield-alert'
import Waypoints from '@lucide/svelte/icons/waypoints'
import { may } from '../api/session.svelte'
import { m } from '../messages'

export interface PageLink {
  href: string
  text: string
  icon: typeof Activity
  /** The permission without which the page is not offered. */
  needs?: string
}

const names = m.shell.pages

const pages: PageLink[] = [
  { href: '/', text: names.fleet, icon: Waypoints },
  { href: '/agents', text: names.agents, icon: Router },
  { href: '/incidents', text: names.incidents, icon: BellRing },
  { href: '/explore', text: names.explore, icon: ChartLine },
  { href: '/dashboards', text: names.dashboards, icon: LayoutDashboard },
  { href: '/rules', text: names.rules, icon: ShieldAlert },
  { href: '/jobs', text: names.jobs, icon: ListChecks, needs: 'jobs.read' },
  { href: '/enrolment', text: names.enrolment, icon: CirclePlus, needs: 'agents.write' },
  { href: '/operations', text: names.operations, icon: Activity },
  { href: '/settings', text: names.settings, icon: Settings },
]

/** The pages that somebody may see. */
export function offeredPages(): PageLink[] {
  return pages.filter((page) => !page.needs || may(page.needs))
}

/** Whether a page is the one at a path, or the path is below it. */
export function isAt(href: string, path: string): boolean {
  return href === '/' ? path === '/' : path === href || path.startsWith(`${href}/`)
}
