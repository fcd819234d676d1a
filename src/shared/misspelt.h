/*-------------------------------------------------------------------------
 *
 * misspelt.h
 *		Settings with our prefix that there are not.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_MISSPELT_H
#define DMU_MISSPELT_H

/*
 * Remembers a setting that the caller has set and that we do not have; for
 * _PG_init only, when our own settings are defined and their prefix is not yet
 * reserved.
 */
extern void dmu_misspelt_remember(void);

/*
 * Raises ERRCODE_UNDEFINED_OBJECT for what was remembered, once: the server
 * has taken it away by then, so there is nothing that the caller could reset.
 */
extern void dmu_misspelt_refuse(void);

/*
 * The setting of ours whose name is the most like this one, a constant; NULL if
 * none is.
 */
extern const char *dmu_misspelt_nearest(const char *name);

#endif							/* DMU_MISSPELT_H */
