/*-------------------------------------------------------------------------
 *
 * text.h
 *		Figures and foreign texts, made fit for a line that people read.  All
 *		results are palloc'd in the current context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_TEXT_H
#define DMU_TEXT_H

#include "postgres.h"

/*
 * A text of somebody else on one line: without line breaks and controls, and
 * with a question mark in the place of every character that is invisible or
 * changes the direction of others.  Longer than "width" characters (0 = any),
 * it is cut.  With "ascii", or in a database of another encoding than UTF8,
 * only ASCII is left of it.
 */
extern char *dmu_text_line(const char *text, int width, bool ascii);

/* A duration in microseconds, in two figures or so: "1 h 30 min", "417 ms". */
extern char *dmu_text_duration(int64 usec);

/* A number with its thousands apart. */
extern char *dmu_text_number(int64 number);

#endif							/* DMU_TEXT_H */
