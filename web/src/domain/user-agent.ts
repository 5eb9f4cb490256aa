// What a browser says of itself, in brief: whoever ends a session wants to know which device it is on.

// The first that fits counts: most browsers name others, too.
const BROWSERS: [string, RegExp][] = [
  ['Edge', /Edg(?:e|A|iOS)?\/(\d+)/],
  ['Opera', /OPR\/(\d+)/],
  ['Samsung Internet', /SamsungBrowser\/(\d+)/],
  ['Firefox', /(?:Firefox|FxiOS)\/(\d+)/],
  ['Chrome', /(?:HeadlessChrome|Chrome|CriOS)\/(\d+)/],
  ['Safari', /Version\/(\d+).* Safari\//],
]
const SYSTEMS: [string, RegExp][] = [
  ['iPhone', /iPhone/],
  ['iPad', /iPad/],
  ['Android', /Android/],
  ['Windows', /Windows/],
  ['macOS', /Mac OS X|Macintosh/],
  ['ChromeOS', /CrOS/],
  ['Linux', /Linux/],
]

/** The browser and its system, such as "Firefox 140 on Windows"; what is not known is returned as it is. */
export function browserOf(userAgent: string): string {
  const browser = BROWSERS.find(([, pattern]) => pattern.test(userAgent))
  if (!browser) return userAgent
  const version = browser[1].exec(userAgent)?.[1]
  const system = SYSTEMS.find(([, pattern]) => pattern.test(userAgent))
  return `${browser[0]} ${version}${system ? ` on ${system[0]}` : ''}`
}
