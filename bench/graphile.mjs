// graphile.mjs fill|work PROCEDURE CONNECTIONS
//
// The same datamart users as jobs of graphile-worker.  "fill" reads their ids
// from standard input, in order, and adds them in one batch; "work" runs them
// with that many connections until none is left.  Connects as PGHOST and the
// like say.

import { readFileSync } from "node:fs";
import pg from "pg";
import { Logger, runMigrations, runOnce } from "graphile-worker";

const [mode, procedure, connections] = process.argv.slice(2);
const pgPool = new pg.Pool({ max: Number(connections) });
const logger = new Logger(() => () => {});

if (mode === "fill") {
	await runMigrations({ pgPool, logger });
	const ids = readFileSync(0, "utf8").split("\n").filter((line) => line !== "").map(Number);
	await pgPool.query(`
		SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
			SELECT ROW ('refresh', json_build_object('id', id), NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec
			FROM unnest($1::bigint[]) WITH ORDINALITY AS queue (id, position)
			ORDER BY position))`, [ids]);
} else {
	let failed = 0;
	const refresh = async ({ id }, { withPgClient }) => {
		try {
			await withPgClient(async (client) => {
				await client.query("BEGIN");
				await client.query(`CALL ${procedure}($1)`, [id]);
				await client.query(
					"UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = $1", [id]);
				await client.query("COMMIT");
			});
		} catch (error) {
			failed++;
			throw error;
		}
	};
	await runOnce({ pgPool, logger, concurrency: Number(connections), noHandleSignals: true, taskList: { refresh } });
	process.exitCode = failed > 0 ? 1 : 0;
}
await pgPool.end();
