/*-------------------------------------------------------------------------
 *
 * attempts.c
 *		The log of refreshes that did not succeed.
 *
 *		datamart_users_failures and datamart_users_contention say who is held
 *		now, and forget who has recovered.  The log does not, until the
 *		retention removes it.
 *
 *		A row for every failed and every deferred datamart user that a cycle
 *		counts, in the transaction that writes the back-off.  This file knows
 *		neither warehouses nor shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "attempts.h"

#include "errors.h"
#include "executor/spi.h"
#include "ownersql.h"
#include "settings.h"

void
dmu_attempts_lock_nowait(void)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "LOCK TABLE %s.datamart_users_attempts"
				  " IN ROW EXCLUSIVE MODE NOWAIT",
				  SPI_OK_UTILITY, 0, NULL);
	dmu_owner_leave(&scope);
}

void
dmu_attempts_add(const DmuAttempt *attempt)
{
	DmuOwnerScope scope;
	const DmuError *error = attempt->error;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_attempts"
				  "  (users_oid, users_table, dimension_user_id, cycle_id, attempted_at,"
				  "   outcome, charged, sqlstate, message)"
				  " VALUES ($1, $2, $3, $4, clock_timestamp(), $5, $6 <> 0, $7, $8)",
				  SPI_OK_INSERT,
				  DMU_PARAMS(dmu_param_oid(attempt->users),
							 dmu_param_text(attempt->users_name),
							 dmu_param_int8(attempt->dimension_user_id),
							 dmu_param_int8(attempt->cycle_id),
							 dmu_param_text(dmu_outcome_name(attempt->outcome)),
							 dmu_param_int4(attempt->charged),
							 dmu_param_text(unpack_sql_state(error->sqlerrcode)),
							 dmu_param_text(dmu_failure_texts ? error->message : DMU_TEXT_NOT_KEPT)));
	dmu_owner_leave(&scope);
}

void
dmu_attempts_add_put_off(Oid users, const char *users_name, int64 cycle_id,
						 const int64 *ids, int nids)
{
	DmuOwnerScope scope;

	/* What collided at the flag has no row there, and no back-off. */
	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_attempts"
				  "  (users_oid, users_table, dimension_user_id, cycle_id, attempted_at,"
				  "   outcome, charged, sqlstate, message)"
				  " SELECT $1, $2, i.id, $3, clock_timestamp(), $5,"
				  "        c.dimension_user_id IS NOT NULL, c.sqlstate,"
				  "        coalesce(c.message, 'put off, and the cycle had to stop before a second attempt')"
				  "   FROM unnest($4) AS i (id)"
				  "   LEFT JOIN %s.datamart_users_contention c"
				  "     ON c.users_oid = $1 AND c.dimension_user_id = i.id AND c.cycle_id = $3",
				  SPI_OK_INSERT,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_text(users_name),
							 dmu_param_int8(cycle_id),
							 dmu_param_int8_array(ids, nids),
							 dmu_param_text(dmu_outcome_name(DMU_DEFERRED))));
	dmu_owner_leave(&scope);
}
