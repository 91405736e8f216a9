// Prints the types of a Parquet file's columns, and its rows, as DuckDB reads them: a JSON value a line. MODULES: a folder with node_modules.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const { DuckDBInstance } = createRequire(join(process.env.MODULES, 'main.js'))('@duckdb/node-api')
const connection = await (await DuckDBInstance.create(':memory:')).connect()
const table = `read_parquet('${process.argv[2].replaceAll("'", "''")}')`
const types = await connection.runAndReadAll(`DESCRIBE SELECT * FROM ${table}`)
console.log(JSON.stringify(Object.fromEntries(types.getRows().map(([name, type]) => [name, type]))))
const rows = await connection.runAndReadAll(`SELECT to_json(r) FROM (SELECT * FROM ${table}) r`)
for (const [row] of rows.getRows()) console.log(row)
