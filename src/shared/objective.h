/*-------------------------------------------------------------------------
 *
 * objective.h
 *		The setting freshness_objective; a part of settings.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_OBJECTIVE_H
#define DMU_OBJECTIVE_H

#include "datamart_users.h"

/* How long datamart users may wait, seconds by DmuPriority; 0 = not said. */
extern int	dmu_freshness_objective[DMU_NPRIORITIES];

/*
 * Fills in such an array; false if the text is none.  For a check hook: needs
 * no transaction and raises nothing.
 */
extern bool dmu_objective_parse(const char *text, int *objective);

#endif							/* DMU_OBJECTIVE_H */
