// Uploads a file with tus-js-client, hanging up as often as it is told, and prints the slide's id.
//
//     node tus_js_upload.mjs FOLDER_OF_NODE_MODULES ENDPOINT FILE CUTS [SEED]
import { createReadStream, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [modules, endpoint, path, cuts, seed = '1'] = process.argv.slice(2)
const require = createRequire(join(modules, 'package.json'))
const tus = require('tus-js-client')
const size = statSync(path).size

// A small generator with a seed (mulberry32): the same cuts in every run.
let state = Number(seed)
function random() {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const at = Array.from({ length: Number(cuts) }, () => Math.floor(random() * size)).sort((a, b) => a - b)

let url = null
let slideId = null
function once(limit) {
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(createReadStream(path), {
      endpoint,
      uploadUrl: url,
      uploadSize: size,
      chunkSize: Infinity,
      retryDelays: [0, 500, 1000, 2000, 4000, 8000, 8000, 8000],
      metadata: { filename: 'sample.svs' },
      onProgress(sent) {
        if (sent >= limit && limit < size) {
          url = upload.url
          upload.abort().then(() => resolve(false), reject)
        }
      },
      onAfterResponse(request, response) {
        slideId = response.getHeader('Eyepiece-Slide-Id') ?? slideId
      },
      onError: reject,
      onSuccess: () => resolve(true),
    })
    upload.start()
  })
}
for (const limit of [...at, size]) {
  if (await once(limit)) break
}
console.log(slideId)
