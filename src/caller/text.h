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
 * with a question mark in the place of every character that is invisible,
 * changes the direction of others, or is not in the client's encoding.  Longer
 * than "width" columns (0 = any), it is cut.
 *
 * SQL_ASCII has no characters but those of ASCII.  In a database of that
 * encoding, other bytes are taken for the client's encoding, which is what the
 * server does.  Those of an encoding that has no conversion to UTF8 cannot be
 * judged, so they are not shown.
 */
extern char *dmu_text_line(const char *text, int width);

/*
 * A text with question marks for what the server could not send to the client,
 * and as it is otherwise.
 */
extern char *dmu_text_sendable(const char *text);

/*
 * Can these characters, given in UTF8, be put into a text and sent to the
 * client?
 */
extern bool dmu_text_has(const char *characters);

/* A duration in microseconds, in two figures or so: "1 h 30 min", "417 ms". */
extern char *dmu_text_duration(int64 usec);

/* The same in seven columns at the most, as one figure: "1.5 h", "417 ms". */
extern char *dmu_text_short_duration(int64 usec);

/* A number with its thousands apart. */
extern char *dmu_text_number(int64 number);

#endif							/* DMU_TEXT_H */
