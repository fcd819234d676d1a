/*-------------------------------------------------------------------------
 *
 * picture.h
 *		One cycle on one screen, drawn from figures.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PICTURE_H
#define DMU_PICTURE_H

#include "datamart_users.h"

#include "canvas.h"

/* The lines that a list takes at the most. */
#define DMU_PICTURE_KINDS 3
#define DMU_PICTURE_UNUSUAL 3

/* As many cycles as it takes to say what is usual. */
#define DMU_PICTURE_COMPARED 10
#define DMU_PICTURE_SLOWEST 3
#define DMU_PICTURE_WORKERS 8

/* A row of datamart_users_cycle_priorities. */
typedef struct DmuPicturePriority
{
	char	   *name;
	int64		found;
	int64		processed;
	int64		failed;
	int64		done;			/* with any outcome */
	int64		total_usec;
	int64		max_usec;
	int64		p50;
	int64		p95;
	int64		p99;
} DmuPicturePriority;

/* Failures of one SQLSTATE; "message" is NULL if it is not to be shown. */
typedef struct DmuPictureKind
{
	char	   *sqlstate;
	int64		number;
	char	   *message;
} DmuPictureKind;

/* "dimension_user_id" is DMU_UNKNOWN if it is not to be shown. */
typedef struct DmuPictureSlow
{
	int64		dimension_user_id;
	char	   *priority;
	int64		usec;
	char	   *outcome;
} DmuPictureSlow;

/* A figure that is not as in the cycles before. */
typedef struct DmuPictureUnusual
{
	char	   *measure;
	bool		is_time;
	int64		value;
	int64		median;
} DmuPictureUnusual;

/*
 * A worker of a running cycle.  "dimension_user_id" as above; "waits" is what
 * it waits for, NULL if it does not or that is not to be shown.
 */
typedef struct DmuPictureWorker
{
	int			number;
	int			pid;
	const char *state;
	int64		dimension_user_id;
	const char *priority;		/* NULL if it is at none */
	int64		usec;			/* since it has been at that */
	char	   *waits;
} DmuPictureWorker;

/*
 * Any int64 may be DMU_UNKNOWN and any text NULL where it is.  Times are
 * microseconds, all other figures datamart users or workers.
 */
typedef struct DmuPicture
{
	int64		cycle_id;
	char	   *status;
	char	   *role_name;
	char	   *session_role;	/* that the caller has logged in as */
	char	   *application_name;
	char	   *users_table;
	char	   *message;
	bool		message_hidden;
	char	   *started_at;
	int64		since;			/* from its start until now */
	int64		elapsed;		/* from its start to its end */
	int64		max_users;
	int64		time_limit;
	int64		workers_requested;
	int64		workers;
	int64		prioritisation_time;
	int64		backlog;
	int64		found;
	int64		outcomes[DMU_NOUTCOMES];
	int64		users_per_minute;
	char	   *success_rate;
	int64		held;
	int64		parked;
	int64		counted;		/* aborted: from its start until counted */
	int64		compared;		/* with so many earlier cycles */
	int			nunusual;
	DmuPictureUnusual unusual[DMU_PICTURE_UNUSUAL];

	/* Of a running cycle. */
	bool		lives;
	char	   *phase;
	int64		done;
	int64		time_left;
	int			nworkers;		/* may be more than there is room for */
	DmuPictureWorker running[DMU_PICTURE_WORKERS];

	int			npriorities;
	DmuPicturePriority priorities[DMU_NPRIORITIES];

	/* The profile; no buckets, no histogram. */
	int64		p50;
	int64		p95;
	int64		p99;
	int			nbuckets;
	int64	   *bucket_upto;	/* ascending */
	int64	   *bucket_count;
	int64		sample_width;
	int			nsamples;
	int64	   *samples;
	char	   *highest;		/* sample, per second */

	int64		planned_alone;	/* datamart users */

	/* The end: workers without work, and whom they waited for. */
	int64		idle_time;
	int64		work_time;		/* of all workers */
	int64		last_worker;	/* its number */
	int64		last_actions;	/* facts */
	DmuPictureSlow last;

	int			nkinds;			/* may be more than there is room for */
	DmuPictureKind kinds[DMU_PICTURE_KINDS];
	int			nslowest;
	DmuPictureSlow slowest[DMU_PICTURE_SLOWEST];
} DmuPicture;

/*
 * The lines, palloc'd; with block characters in the bars where the encodings of
 * database and client have them.
 */
extern char *dmu_picture_draw(const DmuPicture *picture);

#endif							/* DMU_PICTURE_H */
