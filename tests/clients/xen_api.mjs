// Xen Orchestra's library, unmodified, driven line by line: JSON requests on standard input, answers on standard output.
//
// usage: node xen_api.mjs NODE_MODULES        (NODE_EXTRA_CA_CERTS has the members' certificates)
// request {"do": VERB, ...} -> {"ok": value} or {"failed": code or text, "params": [...]}. What the library complains of
// (console.warn) is kept for the verb "complaints".
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const { createClient } = await import(pathToFileURL(process.argv[2] + '/xen-api/index.mjs'))

const complaints = []
console.warn = (...args) => complaints.push(args.map(a => String(a?.message ?? a)).join(' '))

let xapi, auth, options

function client(url) {
  return createClient({ url, auth, debounce: 20, eventPollDelay: 200, ...options })
}

async function open(candidate) {
  await candidate.connect()
  await candidate.objectsFetched
  xapi = candidate
  return { session: xapi.sessionId, host: xapi._url.hostname }
}

// The library of this version stays with the host it was given; its owner keeps the addresses of the other members and goes to
// the first that answers.
async function another() {
  const hosts = Object.values(xapi.objects.all).filter(object => object.$type === 'host')
  const candidates = hosts.map(host => client('https://' + host.address))
  const attempts = candidates.map(candidate => candidate.connect().then(() => candidate))
  const first = await Promise.any(attempts)
  await Promise.allSettled(attempts) // the library cannot be stopped while it connects
  for (const left of [xapi, ...candidates]) if (left !== first) await left.disconnect()
  return open(first)
}

const verbs = {
  connect(request) {
    ;({ auth, options } = request)
    return open(client(request.url))
  },
  another,
  disconnect: () => xapi.disconnect(),
  records() {
    const all = {}
    for (const object of Object.values(xapi.objects.all)) (all[object.$type] ??= {})[object.$ref] = object
    return all
  },
  barrier: ({ ref }) => xapi.barrier(ref),
  call: ({ method, args }) => xapi.call(method, ...args),
  task: ({ method, args }) => xapi.callAsync(method, ...args),
  object: ({ ref }) => xapi.getObject(ref, null),
  // every link of the object that the library follows by itself: {$field: [uuids]}
  links({ ref }) {
    const object = xapi.getObject(ref)
    const found = {}
    for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(object))) {
      if (!name.startsWith('$') || typeof object[name] === 'function') continue
      const value = object[name]
      if (Array.isArray(value)) found[name] = value.map(item => item?.uuid ?? null)
      else if (value?.uuid !== undefined) found[name] = [value.uuid]
    }
    return found
  },
  set: ({ ref, field, value }) => xapi.getObject(ref)[`set_${field}`](value),
  update: ({ ref, field, key, value }) => xapi.getObject(ref)[`update_${field}`](key, value),
  error: () => xapi.watchEventsError?.message ?? null,
  complaints: () => complaints.splice(0),
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  let answer
  try {
    answer = { ok: (await verbs[request.do](request)) ?? null }
  } catch (error) {
    answer = { failed: error.code ?? String(error.message), params: error.params ?? [] }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
process.exit(0)
