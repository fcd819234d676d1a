/*-------------------------------------------------------------------------
 *
 * names.h
 *		The words that people see for the values of our enums.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_NAMES_H
#define DMU_NAMES_H

#include "datamart_users.h"

/* Constant strings; the CHECK constraints of the tables have the same. */
extern const char *dmu_priority_name(DmuPriority priority);
extern const char *dmu_outcome_name(DmuOutcome outcome);
extern const char *dmu_status_name(DmuStatus status);

/* Raises an error for a word that dmu_status_name() does not return. */
extern DmuStatus dmu_status_of_name(const char *name);

#endif							/* DMU_NAMES_H */
