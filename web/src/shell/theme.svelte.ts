// Light or dark: as the system says, unless somebody has chosen.
export type Theme = 'system' | 'light' | 'dark'

const KEY = 'iotistica-theme'
const dark = matchMedia('(prefers-color-scheme: dark)')

export const theme = $state<{ chosen: Theme; isDark: boolean }>({
  chosen: (localStorage.getItem(KEY) as Theme | null) ?? 'system',
  isDark: dark.matches,
})

export function applyTheme(): void {
  theme.isDark = theme.chosen === 'dark' || (theme.chosen === 'system' && dark.matches)
  document.documentElement.dataset.theme = theme.isDark ? 'dark' : 'light'
}

export function chooseTheme(chosen: Theme): void {
  theme.chosen = chosen
  localStorage.setItem(KEY, chosen)
  applyTheme()
}

dark.addEventListener('change', applyTheme)
