// The present, to the second, for everything that shows how long ago something was.

export const now = $state({ time: Date.now() })

setInterval(() => {
  if (document.visibilityState === 'visible') now.time = Date.now()
}, 1000)
document.addEventListener('visibilitychange', () => (now.time = Date.now()))
