// Writes the dashboard that is named as a TypeScript program, which compiles if it is what Grafana's types say: known fields only,
// enumerations spelt right, panels' options those of their kind. What the Prometheus data source reads is said here.
import {execFileSync} from 'node:child_process'
import {readFileSync, writeFileSync} from 'node:fs'

const dashboard = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const literal = value => JSON.stringify(value, null, 1)
const {panels, ...rest} = dashboard
const charts = panels.filter(p => p.type === 'timeseries')

writeFileSync('dashboard.ts', `
import type {Dashboard, FieldConfig, FieldConfigSource, GraphFieldConfig, Panel, RowPanel, VizLegendOptions, VizTooltipOptions} from '@grafana/schema'

// JSON has strings where the types have enumerations.
type Plain<T> = T extends string ? \`\${T}\` : T extends object ? {[K in keyof T]: Plain<T[K]>} : T

interface Query {
	datasource: {type: 'prometheus', uid: string}
	refId: string
	expr: string
	editorMode?: 'code' | 'builder'
	range?: boolean
	instant?: boolean
	exemplar?: boolean
	legendFormat?: string
	format?: 'time_series' | 'table' | 'heatmap'
}
type Chart = Plain<Omit<Panel, 'fieldConfig' | 'options' | 'targets'>> & {
	type: 'timeseries'
	targets: Query[]
	options: Plain<{legend: VizLegendOptions, tooltip: VizTooltipOptions}>
	fieldConfig: {defaults: Plain<Omit<FieldConfig, 'custom'>> & {custom?: Plain<GraphFieldConfig>}, overrides: Plain<FieldConfigSource['overrides']>}
}

export const dashboard: Plain<Omit<Dashboard, 'panels'>> = ${literal(rest)}
export const charts: Chart[] = ${literal(charts)}
export const others: Plain<Panel | RowPanel>[] = ${literal(panels.filter(p => p.type !== 'timeseries'))}
`)
const options = ['--strict', '--noEmit', '--skipLibCheck', '--module', 'esnext', '--moduleResolution', 'bundler', '--target', 'es2022', '--types', '']
try {
	execFileSync('npx', ['tsc', ...options, 'dashboard.ts'], {stdio: 'inherit'})
} catch {
	process.exit(1) // the compiler has said why
}
console.log(`${panels.length} panels, ${charts.length} of them charts: as Grafana's types have it`)
