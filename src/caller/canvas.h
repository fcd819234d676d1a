/*-------------------------------------------------------------------------
 *
 * canvas.h
 *		What a screen is drawn with.  All results are palloc'd in the current
 *		context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_CANVAS_H
#define DMU_CANVAS_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* A figure that nobody knows, shown as "-" or left out. */
#define DMU_UNKNOWN PG_INT64_MIN

/* Where the lines are collected. */
typedef struct DmuCanvas
{
	StringInfoData text;
	bool		blocks;			/* full and light ones, for bars */
	bool		levels;			/* those of eight heights */
	const char *at_most;		/* the sign of it, of one or two columns */
} DmuCanvas;

/* An empty one for the present client. */
extern DmuCanvas *dmu_canvas_make(void);

/* Figures in words; microseconds. */
extern bool dmu_canvas_is_known(int64 figure);
extern const char *dmu_canvas_number(int64 figure);
extern const char *dmu_canvas_duration(int64 usec);
extern const char *dmu_canvas_short_duration(int64 usec);

/* Ends the line, without blanks before its end. */
extern void dmu_canvas_end_line(DmuCanvas *canvas);

/* Adds a part of an enumeration that began at "start". */
extern void dmu_canvas_enumerate(DmuCanvas *canvas, int start, const char *part);

/*
 * A bar of which "part" is filled in, of "width" characters where "whole" is
 * "most".  What is not nothing has a character, and what is not all lacks one.
 * Returns how many characters it has.
 */
extern int	dmu_canvas_bar(DmuCanvas *canvas, int64 part, int64 whole,
						   int64 most, int width);

/* One character for each sample, higher for more; a blank for nothing at all. */
extern void dmu_canvas_levels(DmuCanvas *canvas, const int64 *samples,
							  int nsamples);

#endif							/* DMU_CANVAS_H */
