/*-------------------------------------------------------------------------
 *
 * parked.c
 *		Datamart users that somebody has taken out of the queue.
 *
 *		For one that is known to fail until somebody mends its data: it costs
 *		cycles nothing and hides no new failure behind an old one.  Its flag
 *		stays as it is, and so does what is known of its failures.
 *
 *		This file knows neither warehouses nor shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "parked.h"

#include "executor/spi.h"
#include "ownersql.h"

bool
dmu_parked_add(Oid users, const char *users_name, int64 dimension_user_id,
			   const char *reason, const char *role_name)
{
	DmuOwnerScope scope;
	bool		added;

	/* Only a row that this command has inserted has no xmax. */
	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_parked AS p"
				  "  (users_oid, users_table, dimension_user_id, reason, parked_at, parked_by)"
				  " VALUES ($1, $2, $3, $4, now(), $5)"
				  " ON CONFLICT (users_oid, dimension_user_id) DO UPDATE"
				  "   SET reason = excluded.reason, parked_by = excluded.parked_by"
				  " RETURNING p.xmax = 0",
				  SPI_OK_INSERT_RETURNING,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_text(users_name),
							 dmu_param_int8(dimension_user_id),
							 dmu_param_text(reason),
							 dmu_param_text(role_name)));
	added = DatumGetBool(dmu_owner_value(SPI_tuptable, 0, 1));
	dmu_owner_leave(&scope);
	return added;
}
