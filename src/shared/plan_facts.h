/*-------------------------------------------------------------------------
 *
 * plan_facts.h
 *		What a plan does; a part of plan.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PLAN_FACTS_H
#define DMU_PLAN_FACTS_H

#include "postgres.h"

#include "nodes/plannodes.h"
#include "plan.h"

typedef struct DmuPlanFacts
{
	bool		unbounded;		/* a nested loop reads a side again */
	bool		foreign;		/* a foreign table is read */
	bool		index_only;		/* no table is read, but indexes alone */
} DmuPlanFacts;

/*
 * Needs the locks that planning took.  "few": the outer sides of its nested
 * loops are known to be short.
 */
extern DmuPlanFacts dmu_plan_facts(const PlannedStmt *statement, bool few);

/* See dmu_plan_lookups(). */
extern int	dmu_plan_facts_lookups(const PlannedStmt *statement);

/* See dmu_plan_is_scan(). */
extern bool dmu_plan_facts_scan(const PlannedStmt *statement, Oid relation,
								DmuPlanScan *scan);

#endif							/* DMU_PLAN_FACTS_H */
