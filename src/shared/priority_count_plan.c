/*-------------------------------------------------------------------------
 *
 * priority_count_plan.c
 *		The plans by which facts are counted, and which of them is cheaper.
 *
 *		How many facts somebody has is what the planner knows least, and the
 *		flag it knows as little; so several plans are made of what could be
 *		done, and compared by what is known of them.
 *
 *		This file runs no plan, and knows nobody who is counted but by his id.
 *
 *-------------------------------------------------------------------------
 */
#include "priority_count_plan.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "optimizer/optimizer.h"
#include "priority_query.h"
#include "settings.h"
#include "utils/syscache.h"

/*
 * Looking for recent facts has to be that many times cheaper than to count at
 * once, because it may have been in vain.
 */
#define WORTH_LOOKING 8

static DmuPlan *
make_plan(const DmuWarehouse *warehouse, DmuCounted counted,
		  ParamListInfo params, int flags)
{
	return dmu_plan_make(dmu_priority_build_counts(warehouse, counted), params,
						 flags);
}

static void
set_param(ParamListInfo params, int number, Oid type, Datum value)
{
	params->params[number].value = value;
	params->params[number].isnull = false;
	params->params[number].pflags = PARAM_FLAG_CONST;
	params->params[number].ptype = type;
}

/* The cheaper one; the other is freed. */
static DmuPlan *
cheaper_plan(DmuPlan *a, DmuPlan *b)
{
	DmuPlan    *cheaper = dmu_plan_cost(b) < dmu_plan_cost(a) ? b : a;

	dmu_plan_free(cheaper == a ? b : a);
	return cheaper;
}

/*
 * An array is as long as the planner thinks, but one process has to read it.
 * Where the planner happens to know how many are flagged, and next to all of
 * them are to be counted, the users table can be read in parallel.
 */
static bool
knows_flagged(const DmuCounts *counts, int64 nids)
{
	return counts->unique && nids > counts->n / 2 &&
		counts->expected * 2 > counts->n &&
		counts->expected / 2 < counts->n;
}

/*
 * In the place of a plan that reads all the facts, one that looks each of "n"
 * ids up; NULL if that could cost much more.  How many facts it finds does not
 * matter, and of that the planner knows least: they are in the order of the
 * index, and at most all.
 */
static DmuPlan *
plan_lookups(const DmuWarehouse *warehouse, ParamListInfo ids, int64 n,
			 double cost)
{
	DmuPlan    *plan = make_plan(warehouse, DMU_COUNT_IDS, ids,
								 DMU_PLAN_LOOKUPS);
	int			lookups = dmu_plan_lookups(plan);

	if (lookups >= 0 && (double) n * lookups * random_page_cost <= cost)
		return plan;
	dmu_plan_free(plan);
	return NULL;
}

/*
 * With the ids joined to the facts, or counting everybody's facts, which reads
 * each partition once and hashes no more than its users.
 */
DmuPlan    *
dmu_count_plan_counting(const DmuWarehouse *warehouse, const DmuCounts *counts,
						ArrayType *wanted, int64 n)
{
	ParamListInfo ids = makeParamList(1);
	DmuPlan    *plan;
	DmuPlan    *lookups;
	int			few = n <= DMU_PLAN_FEW_MAX ? DMU_PLAN_FEW : 0;

	set_param(ids, 0, INT8ARRAYOID, PointerGetDatum(wanted));
	if (knows_flagged(counts, n))
		plan = make_plan(warehouse, DMU_COUNT_FLAGGED, NULL, DMU_PLAN_PARALLEL);
	else
		plan = make_plan(warehouse, DMU_COUNT_IDS, ids, DMU_PLAN_PARALLEL | few);
	if (few != 0 || dmu_plan_lookups(plan) >= 0)
		return plan;
	lookups = plan_lookups(warehouse, ids, n, dmu_plan_cost(plan));
	if (lookups != NULL)
	{
		dmu_plan_free(plan);
		return lookups;
	}
	return cheaper_plan(plan, make_plan(warehouse, DMU_COUNT_ALL, NULL,
										DMU_PLAN_PARALLEL | DMU_PLAN_WHOLE_TABLE));
}

DmuPlan    *
dmu_count_plan_looking(const DmuWarehouse *warehouse, int recency_class)
{
	ParamListInfo params = makeParamList(recency_class > 0 ? 2 : 1);

	set_param(params, 0, INT4OID,
			  Int32GetDatum(dmu_recency_days[recency_class]));
	if (recency_class > 0)
		set_param(params, 1, INT4OID,
				  Int32GetDatum(dmu_recency_days[recency_class - 1]));
	return make_plan(warehouse,
					 recency_class > 0 ? DMU_COUNT_BETWEEN : DMU_COUNT_SINCE,
					 params, DMU_PLAN_PARALLEL);
}

/* As VACUUM and ANALYZE have left it; -1 if neither has been. */
static double
rows_of(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	double		rows = -1;

	if (HeapTupleIsValid(tuple))
	{
		rows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
		ReleaseSysCache(tuple);
	}
	return rows;
}

/*
 * As many of those who are found should be wanted as of all datamart users; each
 * costs a search of every partition, and where these would cost more, all would
 * be counted after all.
 */
bool
dmu_count_plan_is_worth_looking(const DmuWarehouse *warehouse,
								const DmuPlan *looking,
								const DmuPlan *counting, int64 n)
{
	double		users = Max(rows_of(warehouse->users), n);
	double		found = dmu_plan_rows(looking) * n / users;
	List	   *partitions = find_all_inheritors(warehouse->facts, NoLock, NULL);
	double		searches = found * list_length(partitions) * random_page_cost;
	double		cost = dmu_plan_cost(counting);
	int			lookups = dmu_plan_lookups(counting);

	/* Of searches the planner expects to find too much. */
	if (lookups >= 0)
		cost = Min(cost, (double) n * lookups);
	list_free(partitions);
	return Max(dmu_plan_cost(looking) * WORTH_LOOKING, searches) < cost;
}
