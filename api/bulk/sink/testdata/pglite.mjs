// Serves an empty PostgreSQL with pgvector on a free port, which it prints, until its input ends. MODULES: a folder with node_modules.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { join } from 'node:path'

const require = createRequire(join(process.env.MODULES, 'main.js'))
const load = (name) => import(pathToFileURL(require.resolve(name)))
const { PGlite } = (await load('@electric-sql/pglite')).default ?? (await load('@electric-sql/pglite'))
const { vector } = (await load('@electric-sql/pglite-pgvector')).default ?? (await load('@electric-sql/pglite-pgvector'))
const { PGLiteSocketServer } = (await load('@electric-sql/pglite-socket')).default ?? (await load('@electric-sql/pglite-socket'))

const db = await PGlite.create({ extensions: { vector } })
await db.exec('CREATE EXTENSION vector')
const server = new PGLiteSocketServer({ db, port: 0, host: '127.0.0.1', maxConnections: 16 })
server.addEventListener('listening', (event) => console.log(event.detail.port))
await server.start()
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
