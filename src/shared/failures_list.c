/*-------------------------------------------------------------------------
 *
 * failures_list.c
 *		Whom failures, contention and parking hold back; a part of failures.h.
 *
 *		Every look asks for all of them, so this is done without SQL.  The file
 *		only reads.
 *
 *-------------------------------------------------------------------------
 */
#include "failures.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "ownerscan.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Those of a datamart, while they are read. */
typedef struct FailureList
{
	DmuFailure *failures;		/* palloc'd, or NULL */
	int			n;
	int			capacity;
} FailureList;

static int
compare_failures(const void *a, const void *b)
{
	int64		left = ((const DmuFailure *) a)->dimension_user_id;
	int64		right = ((const DmuFailure *) b)->dimension_user_id;

	return (left > right) - (left < right);
}

/* DmuOwnerRowConsumer, of datamart_users_failures */
static void
add_failure(const Datum *values, void *arg)
{
	FailureList *list = (FailureList *) arg;
	DmuFailure *failure;

	if (list->n == list->capacity)
	{
		list->capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
		list->failures = list->failures == NULL ?
			palloc(list->capacity * sizeof(DmuFailure)) :
			repalloc_huge(list->failures, list->capacity * sizeof(DmuFailure));
	}
	failure = &list->failures[list->n++];
	memset(failure, 0, sizeof(*failure));
	failure->dimension_user_id = DatumGetInt64(values[0]);
	failure->next_attempt_at = DatumGetTimestampTz(values[1]);
}

/* DmuOwnerRowConsumer, of datamart_users_contention */
static void
add_contention(const Datum *values, void *arg)
{
	FailureList *list = (FailureList *) arg;

	add_failure(values, arg);
	list->failures[list->n - 1].contention = true;
}

/* DmuOwnerRowConsumer, of datamart_users_parked */
static void
add_parked(const Datum *values, void *arg)
{
	FailureList *list = (FailureList *) arg;
	Datum		failure[] = {values[0], TimestampTzGetDatum(DT_NOEND)};

	add_failure(failure, arg);
	list->failures[list->n - 1].parked = true;
}

/* Of whoever is there more than once, what holds him longest. */
static void
merge_failures(FailureList *list)
{
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	for (int i = 0; i < list->n; i++)
	{
		DmuFailure *next = &list->failures[i];
		DmuFailure *last = n == 0 ? NULL : &list->failures[n - 1];

		next->held = next->next_attempt_at > now;
		if (last == NULL || last->dimension_user_id != next->dimension_user_id)
			list->failures[n++] = *next;
		else
		{
			last->parked |= next->parked;
			last->held |= next->held;
			if (next->next_attempt_at == last->next_attempt_at)
				last->contention |= next->contention;
			else if (next->next_attempt_at > last->next_attempt_at)
			{
				last->contention = next->contention;
				last->next_attempt_at = next->next_attempt_at;
			}
		}
	}
	list->n = n;
}

int
dmu_failures_list(Oid users, DmuFailure **failures)
{
	static const DmuOwnerColumn columns[] = {
		{"dimension_user_id", INT8OID}, {"next_attempt_at", TIMESTAMPTZOID}
	};
	static const struct
	{
		const char *table;
		int			ncolumns;
		DmuOwnerRowConsumer consume;
	}			sources[] = {
		{"datamart_users_failures", 2, add_failure},
		{"datamart_users_contention", 2, add_contention},
		{"datamart_users_parked", 1, add_parked},
	};
	FailureList list = {.n = 0};
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;
	Relation	tables[lengthof(sources)];
	Snapshot	snapshot;

	dmu_owner_enter(&scope);
	MemoryContextSwitchTo(context);
	for (int i = 0; i < (int) lengthof(sources); i++)
		tables[i] = dmu_owner_open(&scope, sources[i].table);

	/* One for all, or who moves from one to another would be in none. */
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < (int) lengthof(sources); i++)
	{
		dmu_owner_scan(&scope, tables[i], snapshot, users, columns,
					   sources[i].ncolumns, sources[i].consume, &list);
		relation_close(tables[i], NoLock);
	}
	UnregisterSnapshot(snapshot);
	dmu_owner_leave(&scope);
	if (list.failures == NULL)
		list.failures = palloc(sizeof(DmuFailure));
	qsort(list.failures, list.n, sizeof(DmuFailure), compare_failures);
	merge_failures(&list);
	*failures = list.failures;
	return list.n;
}

const DmuFailure *
dmu_failures_find(const DmuFailure *failures, int nfailures,
				  int64 dimension_user_id)
{
	DmuFailure	key = {.dimension_user_id = dimension_user_id};

	return bsearch(&key, failures, nfailures, sizeof(DmuFailure),
				   compare_failures);
}
