/*-------------------------------------------------------------------------
 *
 * estimate.c
 *		How long what is left of a queue will take.
 *
 *		A queue is in order of the actions, by and large, and a refresh takes the
 *		longer the more there are: so the time per datamart user so far says
 *		nothing of those that are left.  Workers add up what they have done by
 *		size, in powers of two; how many of each size there are the queue says.
 *
 *		Counts and times are read one by one, while they change: it is an
 *		estimate.  This file knows no shared memory but its own part of a slot.
 *
 *-------------------------------------------------------------------------
 */
#include "estimate.h"

#include "port/pg_bitutils.h"

/* More of one size do not make it weigh more. */
#define WEIGHT_MAX 100

/* a + b * actions, microseconds. */
typedef struct Line
{
	double		a;
	double		b;
} Line;

int
dmu_estimate_size(uint32 actions)
{
	return actions == 0 ? 0 : pg_leftmost_one_pos32(actions) + 1;
}

/* The middle of a size. */
static double
actions_of(int size)
{
	return size <= 1 ? size : 1.5 * (UINT64CONST(1) << (size - 1));
}

void
dmu_estimate_init(DmuWork *work)
{
	for (int i = 0; i < DMU_NSIZES; i++)
	{
		pg_atomic_init_u64(&work->done[i], 0);
		pg_atomic_init_u64(&work->usec[i], 0);
	}
}

void
dmu_estimate_add(DmuWork *work, uint32 actions, int done, int64 usec)
{
	int			size = dmu_estimate_size(actions);

	/* There is one writer; the writes are atomic for readers only. */
	pg_atomic_write_u64(&work->done[size],
						pg_atomic_read_u64(&work->done[size]) + done);
	pg_atomic_write_u64(&work->usec[size],
						pg_atomic_read_u64(&work->usec[size]) + usec);
}

void
dmu_estimate_sum(DmuWork *work, DmuWorkLeft *sum)
{
	for (int i = 0; i < DMU_NSIZES; i++)
	{
		sum->done[i] += (int64) pg_atomic_read_u64(&work->done[i]);
		sum->usec[i] += (int64) pg_atomic_read_u64(&work->usec[i]);
	}
}

/* Of those of one size that are done; at least a microsecond. */
static double
mean_usec(const DmuWorkLeft *sum, int size)
{
	return Max((double) sum->usec[size] / sum->done[size], 1);
}

/*
 * Least squares of the relative error, so that light ones count, with neither
 * part below zero.  One size alone says nothing of the two parts; next to all
 * of it is taken for the actions' then.
 */
static bool
fit(const DmuWorkLeft *sum, Line *line)
{
	double		u = 0;
	double		v = 0;
	double		uu = 0;
	double		uv = 0;
	double		vv = 0;
	double		determinant;
	int			sizes = 0;
	int			last = 0;

	for (int i = 0; i < DMU_NSIZES; i++)
	{
		double		weight = Min(sum->done[i], WEIGHT_MAX);
		double		mean;

		if (sum->done[i] <= 0)
			continue;
		mean = mean_usec(sum, i);
		sizes++;
		last = i;
		u += weight / mean;
		v += weight * actions_of(i) / mean;
		uu += weight / (mean * mean);
		uv += weight * actions_of(i) / (mean * mean);
		vv += weight * actions_of(i) * actions_of(i) / (mean * mean);
	}
	if (sizes == 0)
		return false;

	determinant = uu * vv - uv * uv;
	line->a = line->b = 0;
	if (sizes == 1 && last > 0)
	{
		line->a = 0.1 * mean_usec(sum, last);
		line->b = 0.9 * mean_usec(sum, last) / actions_of(last);
	}
	else if (sizes > 1 && determinant > 0)
	{
		line->a = (u * vv - v * uv) / determinant;
		line->b = (v * uu - u * uv) / determinant;
	}
	if (line->b <= 0)
	{
		line->a = u / uu;
		line->b = 0;
	}
	else if (line->a < 0)
	{
		line->a = 0;
		line->b = v / vv;
	}
	return true;
}

static double
estimate(const DmuWorkLeft *sum, const Line *line, int size)
{
	if (sum->done[size] > 0)
		return mean_usec(sum, size);
	return line->a + line->b * actions_of(size);
}

double
dmu_estimate_left(const DmuWorkLeft *sum)
{
	Line		line;
	double		usec = 0;

	if (!fit(sum, &line))
		return -1;
	for (int i = 0; i < DMU_NSIZES; i++)
	{
		if (sum->left[i] > 0)
			usec += sum->left[i] * estimate(sum, &line, i);
	}
	return usec;
}

double
dmu_estimate_one(const DmuWorkLeft *sum, int size)
{
	Line		line;

	return fit(sum, &line) ? estimate(sum, &line, size) : -1;
}
