// Builds the dashboard: one chunk a page, hashed names, and compressed copies of what compresses well.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vite'

const SMALLEST = 1000 // bytes; a smaller file fits into one packet anyway

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile())
}

/** Adds `.br` and `.gz` beside each file, so that the server never compresses them itself. */
function compressed(): Plugin {
  return {
    name: 'compressed-copies',
    apply: 'build',
    writeBundle({ dir }) {
      for (const path of filesIn(dir ?? '')) {
        const content = readFileSync(path)
        if (content.length < SMALLEST) continue
        const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY }
        writeFileSync(`${path}.br`, brotliCompressSync(content, { params: quality }))
        writeFileSync(`${path}.gz`, gzipSync(content, { level: 9 }))
      }
    },
  }
}

/** The content security policy allows no style attributes; some components of bits-ui have this one. */
function withoutStyleAttributes(): Plugin {
  return {
    name: 'without-style-attributes',
    enforce: 'pre',
    transform(code, id) {
      if (!id.includes('/bits-ui/') || !id.endsWith('.svelte')) return
      return code.replaceAll('style="display: contents;"', 'class="contents"')
    },
  }
}

export default defineConfig({
  plugins: [withoutStyleAttributes(), svelte(), compressed()],
  build: {
    outDir: '.build/dist',
    emptyOutDir: true,
    assetsInlineLimit: 0, // the content security policy allows no inline scripts or styles
    modulePreload: { polyfill: false },
    target: 'es2022',
    reportCompressedSize: false,
  },
  worker: { format: 'es' },
  server: { proxy: { '/api': process.env.IOTISTICA_URL ?? 'http://127.0.0.1:3002' } },
})
